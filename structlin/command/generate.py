"""How does a trained model go on with a text? Loads the newest checkpoint of a run and writes on, token by token.

    structlin generate run=ID prompt="Fellow citizens"      (the same: python -m structlin.generate ...)

Keys:
  run           a run's id, the first letters of it, or its folder
  prompt        what it goes on with; @FILE reads one (default: a newline)
  tokens        how many it writes (200)
  temperature   of its choices: 1 as it learned them, below 1 likelier ones, 0 always the likeliest (0.8)
  top_k         of so many likeliest alone; 0: of all (0)
  seed          of its choices (0)
  step          of the checkpoint; newest: the last there is (newest)
  rank_share    share of the ranks that writes, the leading ones, as 1/4: one of those that the run was trained at
                (nested.menu) (1)
  runs          the store (runs)
  data.root     where vocabularies are kept: gpt2's, and those of tokenizers' files (data)
  device        auto, cpu or cuda (auto)
  merged        the dense matrix of structured layers beside their factors. true: it always serves; auto: where a
                measurement finds it quicker, so that the same seed may choose another word; false: never (false)
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from structlin.command.trained import NEWEST, found, loaded
from structlin.config.nested import at_share, menu_of, share_of
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.data import vocab_size
from structlin.errors import UserError, asks_help, key_values, one_line, suggest, whole_number

DEFAULTS = {
    "run": "",
    "prompt": "\n",
    "tokens": "200",
    "temperature": "0.8",
    "top_k": "0",
    "seed": "0",
    "step": NEWEST,
    "rank_share": "1",
    "runs": "runs",
    "data.root": "data",
    "device": "auto",
    "merged": "false",
}
MERGED = ("true", "false", "auto")


@dataclass(frozen=True)
class Text:
    """How a tokenizer's ids are written and read."""

    ids: Callable[[str], list[int]]
    written: Callable[[list[int]], str]
    among: int
    """Ids below it are symbols of the tokenizer."""


def main(arguments: list[str]) -> int:
    """Write on. UserError for a run that is not there, cannot write, or a prompt that it cannot read."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, DEFAULTS)
    count = whole_number("tokens", values["tokens"], 1, 10**6)
    temperature = _temperature(values["temperature"])
    top_k = whole_number("top_k", values["top_k"], 0)
    if values["merged"] not in MERGED:
        raise UserError(f"merged={values['merged']} is unknown; {suggest(values['merged'], MERGED)}")
    folder = found(Path(values["runs"]).expanduser(), values["run"])
    science = folder.science()
    share = _share(values["rank_share"], science)
    text = text_of(science, Path(values["data.root"]).expanduser())
    prompt = _prompt(values["prompt"])
    ids = text.ids(prompt)
    # Here, since a shell that completes the keys needs no torch.
    import torch

    from structlin.models.decoding import Decoder, continued
    from structlin.models.gpt2 import GPT2
    from structlin.nn.merged import ALWAYS, merge
    from structlin.nn.nested import take_share
    from structlin.tasks.shared import autocast
    from structlin.training.device import pick_device, settle

    placement = Placement(device=values["device"])
    device = pick_device(placement)
    settle(device, placement, science)
    model, step = loaded(folder, science, values["step"])
    assert isinstance(model, GPT2), "what writes text is a GPT-2"
    take_share(model, share)
    generator = torch.Generator().manual_seed(whole_number("seed", values["seed"], 0))
    decoder = Decoder(model.to(device))
    start = torch.tensor(ids)
    name = f"{at_share(science.variant, share)} d{science.model.d_model} seed {science.seed}"
    print(f"{name} at step {step:,}, context {decoder.context}", file=sys.stderr)
    with autocast(science, device):
        if values["merged"] != "false":
            rows = merge(decoder.model, ALWAYS if values["merged"] == "true" else None)
            print(f"{len(rows)} layers are merged", file=sys.stderr)
        tokens = continued(decoder, start, temperature=temperature, top_k=top_k, generator=generator, among=text.among)
        _write(prompt, tokens, count, text)
    return 0


def _write(prompt: str, tokens: Iterator[int], count: int, text: Text) -> None:
    print(prompt, end="", flush=True)
    written: list[int] = []
    shown = 0
    began = time.perf_counter()
    for _ in range(count):
        written.append(next(tokens))
        # A character may take several tokens: what is not whole yet waits.
        whole = text.written(written).rstrip("\N{REPLACEMENT CHARACTER}")
        print(whole[shown:], end="", flush=True)
        shown = len(whole)
    took = time.perf_counter() - began
    print(flush=True)
    print(f"{count} tokens, {1e3 * took / count:.1f} ms each", file=sys.stderr)


def text_of(science: Science, data_root: Path) -> Text:
    """How its tokens are text. UserError for a model that writes none."""
    tokenizer = science.data.tokenizer
    if science.task != "language":
        raise UserError(f"a run of task={science.task}, tokenizer={tokenizer} writes no text; give one of language")
    if tokenizer == "char96":
        from structlin.data import char96

        def ids(prompt: str) -> list[int]:
            try:
                return [int(one) for one in char96.encode(prompt)]
            except ValueError as error:
                raise UserError(f"prompt: {one_line(error)} of char96 (newline and printable ASCII)") from None

        return Text(ids, char96.decode, 96)
    if tokenizer != "gpt2":
        from structlin.data.vocabulary import load

        found = load(tokenizer, data_root)
        return Text(found.ids, found.written, vocab_size(tokenizer))
    from structlin.data.bpe import END_OF_TEXT, load_encoding

    encoding = load_encoding(data_root)
    return Text(encoding.encode_ordinary, encoding.decode, END_OF_TEXT + 1)


def _prompt(text: str) -> str:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).expanduser().read_text()
        except UnicodeDecodeError:
            raise UserError(f"prompt={text} is no text in UTF-8") from None
        except OSError as error:
            raise UserError(f"prompt={text} cannot be read: {error.strerror}") from None
    if not text:
        raise UserError("prompt is empty; a model goes on with something: leave the key out for a newline")
    return text


def _share(text: str, science: Science) -> Fraction:
    """A share of the ranks that the run was trained at. UserError for another."""
    menu = menu_of(science.nested)
    share = share_of(text, "rank_share", "write it such as 1/4")
    if share not in menu:
        shares = "|".join(map(str, menu))
        raise UserError(f"rank_share = {text}, but the run was trained at rank_share={shares} of its rank alone")
    return share


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"temperature = {text} should be a number of at least 0, such as 0.8")
    return value
