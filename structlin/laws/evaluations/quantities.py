"""What number does a cell mean? Factors of units, units in headers, numbers written as text, and what cannot be one.

factor      units='{params: M}', or a header ``N (M)``
parsed      12.5M, 1,666,667, 3.2 B tokens under units=text
numbers     a column as positive numbers, else the row and column that are none
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.minimum.objective import Array

TEXT = "text"
"""The unit of numbers that are written for people."""
PERPLEXITY = "ppl"
UNITS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "g": 1e9, "billion": 1e9, "t": 1e12,
         "trillion": 1e12, "p": 1e15, "e": 1e18, "nats": 1.0, "bits": float(np.log(2.0)), "pf_days": 8.64e19,
         "pf-days": 8.64e19, "hours": 3600.0, "h": 3600.0, "days": 86400.0, "one": 1.0}  # fmt: skip
# Units that say what a loss is: a given one is believed.
LOSS_UNITS = {"nats", "bits", PERPLEXITY, "perplexity", "bpb"}
# Consecutive sorted values of one column this far apart are taken for two units.
_UNIT_GAP = 1e3
# Above this a loss in nats would be worse than guessing among 160,000 tokens.
MOST_NATS = 12.0
# Bits over nats, in log loss, and how far the heaps of a mixture have to lie apart.
_BITS, _HEAP = float(np.log(1.0 / np.log(2.0))), 0.2
_WRITTEN = re.compile(r"^([+-]?(?:\d[\d,_  ']*)?\.?\d+(?:e[+-]?\d+)?)\s*([a-z]*)", re.IGNORECASE)


def words(column: pd.Series) -> pd.Series:
    """A column as text without spaces around it, empty where there is nothing (astype(str) keeps NaN in pandas 3)."""
    if is_text(column) or pd.api.types.is_integer_dtype(column):
        # A table of many evaluations has few names.
        codes, names = pd.factorize(column)
        return pd.Series(np.array([*(str(name).strip() for name in names), ""], object)[codes], index=column.index)
    return column.map(lambda value: "" if _missing(value) else str(value).strip()).astype(object)


def is_text(column: pd.Series) -> bool:
    """Whether all that stands in a column is text."""
    return pd.api.types.infer_dtype(column, skipna=True) == "string"


def is_blank(column: pd.Series) -> bool:
    """Whether nothing stands in a column, or spaces alone."""
    some = column.dropna()
    return bool(some.empty or not (pd.api.types.is_numeric_dtype(some) or (words(some) != "").any()))


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def header(name: str) -> tuple[str, str | None]:
    """``N (M)`` -> ("N", "M"); a name without a known unit at its end -> (name, None)."""
    found = re.fullmatch(r"(.*?)\s*[\(\[]\s*([^()\[\]]+?)\s*[\)\]]", name.strip())
    if found and found[1] and _unit(found[2]) in {*UNITS, PERPLEXITY, "perplexity", "bpb"}:
        return found[1], _unit(found[2])
    return name, None


def _unit(text: str) -> str:
    """``B tokens`` -> b, ``in millions`` -> million."""
    text = text.strip().lower().removeprefix("in ").removesuffix("tokens").removesuffix("params").strip()
    return text.removesuffix("s") if text.removesuffix("s") in ("million", "billion", "trillion", "thousand") else text


def factor(key: str, unit: str) -> float:
    """What a value is multiplied with."""
    text = unit.strip().lower()
    if text in UNITS:
        return UNITS[text]
    if text == TEXT or (key == "loss" and text in (PERPLEXITY, "perplexity", "bpb")):
        return UNITS["bits"] if text == "bpb" else 1.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < np.inf:
        raise UserError(f"units: {key}={unit} is not known; a number, {TEXT}, or {suggest(unit, UNITS)}")
    return value


def parsed(value: object) -> float:
    """A number as people write it, NaN where it is none: 12.5M, 1,666,667, 3e9, 70 B."""
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    found = _WRITTEN.match(text)
    if not found:
        return float("nan")
    try:
        number = float(re.sub(r"[,_  ']", "", found[1]))
    except ValueError:
        return float("nan")
    # ``1,5`` and ``1,23`` have no groups of three: what their comma means is not known.
    if "," in found[1] and not re.match(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?(e[+-]?\d+)?$", found[1], re.IGNORECASE):
        return float("nan")
    unit = found[2].lower()
    if unit and unit not in UNITS:
        return number if unit in ("tokens", "params", "flops", "steps") else float("nan")
    return number * UNITS.get(unit, 1.0)


def numbers(
    table: pd.DataFrame, name: str, scale: float = 1.0, *, positive: bool = True, written: bool = False
) -> pd.Series:
    """A column as positive numbers. Raises UserError naming the first row (from 1, header not counted) that is not."""
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if written:
        column = column.map(lambda value: value if _missing(value) or value == "" else _or_text(value))
    values = pd.to_numeric(column, errors="coerce").astype(float)
    text = values.isna()
    text[text] = ~words(column[text]).str.lower().isin(("", "nan", "na", "n/a", "null", "none", "-"))
    if text.any():
        row = first(text)
        shown = column.iloc[row]
        way = "units=text reads such numbers" if parsed(shown) == parsed(shown) else "write plain numbers in one unit"
        raise UserError(
            f"row {int(column.index[row]) + 1}, column '{name}': '{shown}' is not a number; {way} and name the unit "
            "with units='{...}'"
        )
    bad = values.abs() == np.inf
    if positive:
        bad |= values <= 0
    if bad.any():
        row = first(bad)
        at = int(column.index[row]) + 1
        raise UserError(
            f"row {at}, column '{name}': {column.iloc[row]} is not a positive, finite number; take the row out, or "
            "pick rows with where=..."
        )
    return values * scale


def _or_text(value: object) -> object:
    number = parsed(value)
    return value if number != number else number


def first(mask: pd.Series) -> int:
    """Position of the first true value."""
    return int(np.flatnonzero(mask.to_numpy())[0])


def one_unit(values: pd.Series, name: str) -> None:
    """Raise where a column falls apart into two scales no sweep has."""
    known = values.dropna()
    order = np.argsort(known.to_numpy())
    ranked = known.to_numpy()[order]
    ratio = ranked[1:] / ranked[:-1]
    if len(ratio) and ratio.max() > _UNIT_GAP:
        cut = int(np.argmax(ratio))
        low, high = known.index[order[cut]], known.index[order[cut + 1]]
        raise UserError(
            f"column '{name}' seems to hold two units: row {low + 1} has {ranked[cut]:g} and row {high + 1} has "
            f"{ranked[cut + 1]:g}, with nothing between; bring it to one unit, or pick rows with where=..."
        )


def no_perplexity(values: pd.Series, name: str) -> None:
    """Raise where a loss is too large for nats; a unit that was given is believed, and this not asked."""
    known = values.dropna()
    if len(known) and known.median() > MOST_NATS:
        row = first(values > MOST_NATS)
        raise UserError(
            f"row {int(values.index[row]) + 1}, column '{name}': {values.iloc[row]:g} is too large for nats per token "
            "and looks like a perplexity; units='{loss: ppl}' takes its logarithm, units='{loss: nats}' leaves it"
        )


def one_loss_unit(frame: pd.DataFrame, name: str) -> None:
    """Raise where losses fall into two heaps that bits and nats would make: a factor 1.44 at equal N and D."""
    known = [column for column in ("N", "D", "C") if column in frame][:2]
    if len(frame) < 8 or not known:
        return
    x = np.log(frame[known].to_numpy(float))
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    y = np.log(frame["L"].to_numpy(float))
    share, low, high = _heaps(np.column_stack([np.ones(len(x)), x, x**2]), y)
    if share:
        rows = frame.index.to_numpy()
        raise UserError(
            f"column '{name}' seems to hold bits and nats: row {rows[high] + 1} has {np.exp(y[high]):.4g} and row "
            f"{rows[low] + 1} {np.exp(y[low]):.4g}, {share} rows lie about 1.44 times above the others; bring it to "
            "one unit, or units='{loss: nats}' where it is one"
        )


def _heaps(design: Array, y: Array) -> tuple[int, int, int]:
    """(rows of the upper heap, a row of the lower, a row of the upper), zeros where there is one heap."""
    upper = np.zeros(len(y), dtype=bool)
    # A step of its own for the upper heap: found and fitted in turns, as the trend of both together hides it.
    for _ in range(4):
        moved = y - _BITS * upper
        rest = moved - design @ np.linalg.lstsq(design, moved, rcond=None)[0] + _BITS * upper
        ranked = np.sort(rest)
        cut = int(np.argmax(np.diff(ranked)))
        now = rest > 0.5 * (ranked[cut] + ranked[cut + 1])
        if (now == upper).all():
            break
        upper = now
    least = max(2, len(y) // 20)
    if min(upper.sum(), (~upper).sum()) < least or ranked[cut + 1] - ranked[cut] < _HEAP:
        return 0, 0, 0
    # A step that N and D could make too is none of units: without it, they must leave much more of the losses.
    plain, stepped = (
        float(np.std(z - design @ np.linalg.lstsq(design, z, rcond=None)[0])) for z in (y, y - _BITS * upper)
    )
    if plain < _HEAP / 8.0 or stepped > 0.7 * plain:
        return 0, 0, 0
    apart = float(np.median(rest[upper]) - np.median(rest[~upper]))
    if not 0.75 * _BITS < apart < 1.35 * _BITS:
        return 0, 0, 0
    return int(upper.sum()), int(np.flatnonzero(~upper)[0]), int(np.flatnonzero(upper)[0])
