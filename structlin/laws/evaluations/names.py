"""Which column is what? Names as they are asked for, else as they are found in the wild; else a line to type.

``match_columns`` gives key -> column. Where a table has none for the loss or the size, ``proposal`` says what columns
there are and writes the command with the likeliest of them filled in.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.evaluations.quantities import header, is_blank

# key of ``columns`` -> spellings found in the wild, compared without case, spaces, dashes, slashes and underscores.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "params": ("n", "params", "parameters", "nparams", "numparams", "numparameters", "modelsize", "modelparams", "size",
               "nonembeddingparams", "nonembparams", "paramsnonembedding", "paramsactive", "activeparams",
               "activeparameters", "nactive", "macspertoken", "nonembedding"),
    "tokens": ("d", "tokens", "trainingtokens", "ntokens", "datasize", "numtokens", "tokensseen", "seentokens",
               "traintokens", "tokenstrained", "tokensprocessed", "totaltokens", "numtokensseen", "trainedtokens"),
    "loss": ("l", "loss", "valloss", "validationloss", "testloss", "evalloss", "finalloss", "lossval", "losseval",
             "validloss", "vallossfinal", "finalvalloss", "crossentropy", "evalcrossentropy", "ce", "nll", "valnll"),
    "ppl": ("ppl", "perplexity", "valppl", "evalppl", "validationperplexity", "evalperplexity", "valperplexity",
            "validationppl", "testppl"),
    "bpb": ("bpb", "bitsperbyte", "valbpb", "evalbpb", "validationbpb", "bitsperchar", "bpc", "valbpc", "bitspertoken"),
    "flops": ("c", "flops", "flop", "compute", "trainingflops", "trainingflop", "trainflops", "totalflops"),
    "structure": ("structure", "arch", "architecture"),
    "moe": ("moe",),
    "variant": ("variant",),
    "run": ("run", "runid", "runname", "name", "id"),
    "seed": ("seed",),
    "width": ("width", "dmodel", "hiddensize"),
    "step": ("step", "steps", "trainstep", "globalstep", "iteration", "iterations", "iter"),
    "schedule": ("schedule", "lrschedule"),
    "in_warmup": ("inwarmup",),
    "optimizer": ("optimizer", "optimiser"),
    "batch_tokens": ("batchtokens", "tokensperstep", "batchsizetokens", "tokensperbatch"),
    "batch": ("batchsize", "globalbatchsize", "batch", "trainbatchsize", "bs"),
    "length": ("seqlen", "sequencelength", "seqlength", "contextlength", "context", "blocksize", "maxseqlen", "ctxlen"),
    "data": ("data", "dataset", "corpus"),
    "task": ("task",),
    "learning_rate": ("learningrate", "lr", "peaklr", "maxlr"),
    "seconds": ("seconds", "walltime", "wallclock"),
    "memory": ("memory", "memorybytes"),
    "total": ("paramstotal", "totalparams", "totalparameters", "ntotal"),
    "experts": ("experts", "numexperts", "nexperts"),
    "top_k": ("topk", "activeexperts", "numexpertspertok", "expertspertoken"),
    "granularity": ("granularity",),
    "epochs": ("epochs", "epoch", "dataepochs", "numepochs"),
    "unique_tokens": ("uniquetokens", "uniquedata", "datasettokens", "corpustokens"),
}  # fmt: skip
NUMBERS = (
    "params", "tokens", "loss", "flops", "width", "step", "seconds", "memory", "batch_tokens", "batch", "length",
    "learning_rate", "total", "experts", "top_k", "granularity", "epochs", "unique_tokens",
)  # fmt: skip
# Keys whose cells may be zero.
MAY_BE_ZERO = ("step", "epochs", "tokens", "flops", "learning_rate", "experts", "top_k", "granularity", "total")
# What the alternatives of a loss are called in laws.json.
CONVERTED = {"ppl": "its logarithm, nats per token", "bpb": "times ln 2: nats per byte (or character)"}


def plain(name: str) -> str:
    """A name without case and without what stands between its words."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def match_columns(table: pd.DataFrame, wanted: dict[str, str]) -> dict[str, str]:
    """key -> name in the table: as asked, else by common spellings. Raises UserError for names that do not exist."""
    for key, name in wanted.items():
        if key not in SYNONYMS:
            raise UserError(f"columns: unknown key '{key}'; {suggest(key, SYNONYMS)}")
        if name not in table.columns:
            raise UserError(f"columns: the table has no column '{name}'; {suggest(name, map(str, table.columns))}")
    found = dict(wanted)
    taken = set(wanted.values())
    spelled: dict[str, str] = {}
    for name in table.columns:
        # A column without a value is as good as none.
        if not is_blank(table[name]):
            spelled.setdefault(plain(header(str(name))[0]), str(name))
    for key, spellings in SYNONYMS.items():
        names = [spelled[s] for s in spellings if s in spelled and spelled[s] not in taken]
        if key not in found and names:
            found[key] = names[0]
            taken.add(names[0])
    return found


def proposal(table: pd.DataFrame, found: dict[str, str], lacking: str, where: str) -> UserError:
    """The error for a table without what a law needs: its columns, and the line that would name them."""
    guess = {key: found.get(key) or _likeliest(table, key, found) for key in ("params", "tokens", "loss")}
    mapping = ", ".join(f"{key}: {name or '...'}" for key, name in guess.items())
    shown = [_shown(table, name) for name in table.columns[:12]]
    rest = f", and {len(table.columns) - 12} more" if len(table.columns) > 12 else ""
    return UserError(
        f"no column for {lacking}; the table has {', '.join(shown)}{rest}; name yours: "
        f"python fit_laws.py source=table table={where or 'FILE'} columns='{{{mapping}}}'"
    )


def _shown(table: pd.DataFrame, name: object) -> str:
    """``size 1e+06..3e+09``, ``arch (text)``."""
    values = pd.to_numeric(table[name], errors="coerce")
    if values.notna().mean() < 0.5:
        return f"{name} (text)"
    return f"{name} {values.min():.3g}..{values.max():.3g}"


def _likeliest(table: pd.DataFrame, key: str, found: dict[str, str]) -> str | None:
    """A column whose name holds the word, else (for a loss) whose numbers look like one."""
    hints = {"params": ("param", "size", "macs"), "tokens": ("tok", "sample", "data"), "loss": ("loss", "ent", "err")}
    free = [str(name) for name in table.columns if str(name) not in found.values()]
    numeric = [name for name in free if pd.to_numeric(table[name], errors="coerce").notna().mean() > 0.5]
    for hint in hints[key]:
        for name in numeric:
            if hint in plain(name):
                return name
    if key == "loss":
        inside = [name for name in numeric if _like_a_loss(pd.to_numeric(table[name], errors="coerce"))]
        return inside[0] if len(inside) == 1 else None
    return None


def _like_a_loss(values: pd.Series) -> bool:
    known = values.dropna().to_numpy(float)
    return bool(len(known) and known.min() > 0.05 and known.max() < 13 and np.any(known != np.round(known)))
