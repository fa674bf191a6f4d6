"""How is data prepared from the command line? ``python -m structlin.data data=sotu``."""

from __future__ import annotations

import sys
from pathlib import Path

from structlin.data.labels import LabelManifest
from structlin.data.learned import bundled, learn
from structlin.data.manifest import Manifest
from structlin.data.prepare import prepare, training_documents
from structlin.data.recipe import SOURCES, DataRecipe, is_prepared
from structlin.data.teacher import DEPTH, WIDTH
from structlin.data.tokenizers import TOKENIZERS
from structlin.errors import UserError, asks_help, door, key_values, whole_number
from structlin.host.files import write_atomically

DEFAULTS = {
    "data": "",
    "tokenizer": "",
    "path": "",
    "column": "text",
    "validation_every": "0",
    "seed": "0",
    "width": str(WIDTH),
    "depth": str(DEPTH),
    "samples": "0",
    "version": "0",
    "size": "0",
    "channels": "0",
    "odd": "",
    "vocabulary": "0",
    "out": "",
    "root": "data",
}

HELP = f"""\
python -m structlin.data data=NAME [key=value ...]

Makes the token shards (or labels) of NAME, or checks those that are there against their hashes.

  data              {", ".join(sorted(SOURCES))}
  tokenizer         {", ".join(sorted(TOKENIZERS))} (default: char96 for text, pixels for images),
                    labels: images whole, with their classes; a vocabulary that comes with the package
                    ({", ".join(bundled())}), or a tokenizer's file
  vocabulary        learn so many byte-pair tokens from the training text, instead of preparing it, and write them to
  out               FILE.json, which data.tokenizer=FILE.json reads
  path              local files: text, JSON (lines or an array), CSV or parquet, a folder, or a quoted glob
                    (needed by text; npz files for cifar5m; instead of the hub for openwebtext; an archive or a
                    folder of cifar10 and cifar100; a folder of folders, one a class, for images)
  column            field of a parquet, CSV or JSON row that holds the text (default: text)
  validation_every  one document or image in so many is validation (default: the source's own)
  version           of the recipe: 1 (every n-th document is validation) or 2 (by a hash: copies lie on one side);
                    default: 2 for text, 1 for published and embedded data
  samples           teacher: training labels needed at least, such as 2e6 (a sweep makes those that it needs)
  seed              teacher: data seed, of its weights and samples (default: 0)
  width             teacher: features of its hidden layers (default: {WIDTH})
  depth             teacher: hidden layers (default: {DEPTH})
  size              images: side in pixels that they are made to (default: 64)
  channels          images: 1 where they are grey (default: 3)
  odd               images: convert grey ones among colour ones, or refuse (the default)
  root              data folder (default: data)
"""


def main(arguments: list[str]) -> None:
    """Prepare or check, and print one line."""
    if asks_help(arguments):
        print(HELP, end="")
        return
    values = parse(arguments)
    root = Path(values["root"]).expanduser()
    recipe = DataRecipe(
        name=values["data"],
        tokenizer=values["tokenizer"],
        path=values["path"],
        column=values["column"],
        validation_every=whole_number("validation_every", values["validation_every"]),
        seed=whole_number("seed", values["seed"]),
        width=whole_number("width", values["width"]),
        depth=whole_number("depth", values["depth"]),
        version=whole_number("version", values["version"]),
        size=whole_number("size", values["size"]),
        channels=whole_number("channels", values["channels"]),
        odd=values["odd"],
    )
    if values["vocabulary"] != "0" or values["out"]:
        _learn(recipe, whole_number("vocabulary", values["vocabulary"]), values["out"])
        return
    samples = whole_number("samples", values["samples"])
    there = is_prepared(recipe, root, samples)
    place = prepare(recipe, root, progress=_progress, samples=samples)
    manifest = LabelManifest.read(place) if recipe.is_endless else Manifest.read(place)
    if there:
        manifest.check_contents(place)
    print(_result(place, manifest, "checked" if there else "prepared"))


def _learn(recipe: DataRecipe, size: int, out: str) -> None:
    if not out.endswith(".json"):
        raise UserError(f"out={out}: a vocabulary is written to out=FILE.json, which data.tokenizer=FILE.json reads")
    if recipe.kind != "language":
        raise UserError(f"vocabulary={size}: data={recipe.name} is no text")
    write_atomically(Path(out), learn(training_documents(recipe), size).encode())
    print(f"learned {out}: {size:,} tokens; data.tokenizer={out} takes it")


def parse(arguments: list[str]) -> dict[str, str]:
    """Values by key, defaults filled in; ``UserError`` names what is wrong and lists the valid keys."""
    # The doors say data.path=... for what is path=... here.
    values = key_values([argument.removeprefix("data.") for argument in arguments], DEFAULTS)
    if not values["data"]:
        raise UserError(f"say which data: data={'|'.join(sorted(SOURCES))}")
    return values


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _result(place: Path, manifest: Manifest | LabelManifest, done: str) -> str:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if isinstance(manifest, LabelManifest):
        counts = (manifest.num_labels(split) for split in ("train", "validation"))
        return f"{done} {place}: " + "{:,} train + {:,} validation labels".format(*counts)
    train, validation = manifest.splits["train"], manifest.splits["validation"]
    cleaning = manifest.cleaning
    if "classes" in cleaning:
        numbers = f"{train.num_documents:,} train + {validation.num_documents:,} validation images"
        return f"{done} {place}: {numbers} of {cleaning['classes']} classes"
    return (
        f"{done} {place}: {train.num_tokens:,} train + {validation.num_tokens:,} validation tokens, "
        f"{cleaning['documents_kept']:,} of {cleaning['documents_read']:,} documents, "
        f"{cleaning['dropped_share']:.4%} of characters dropped"
    )


if __name__ == "__main__":
    door(main)
