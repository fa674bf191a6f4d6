"""Did a forecast hold? Predictions kept with their law before the runs, and scored by the runs that came after.

    forecasts/NAME.json      what was said: law, hash of the data, date, code, predictions with intervals
    forecasts/record.json    every score of every forecast, one entry a prediction: the running record

Laws write one by forecast=NAME, a search when it is over (structlin/search/forecast.py). A prediction is scored where
later runs of its variant reached its compute: against the measured frontier there.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from structlin import __version__
from structlin.errors import UserError
from structlin.host.files import write_atomically
from structlin.laws.approaches.hull import lower_hull
from structlin.laws.approaches.laws import Laws
from structlin.laws.minimum.objective import Array
from structlin.laws.predictions import predict

FOLDER = Path("forecasts")
RECORD = "record.json"
# Where no compute was asked for: so many times the largest measured.
_AHEAD = (3.0, 10.0, 30.0)
_NEAR = 1.02
_NUMBERS = ("flops", "predicted", "measured", "error")

Entry = dict[str, Any]


def data_hash(frame: pd.DataFrame) -> str:
    """SHA-256 of the points that were fitted, 16 hexadecimal digits; columns as in ``Points.frame``."""
    columns = [name for name in ("variant", "run", "N", "D", "C", "L") if name in frame]
    rows = frame[columns].sort_values(columns, kind="stable")
    return hashlib.sha256(rows.to_csv(index=False, float_format="%.12g").encode()).hexdigest()[:16]


def data_of(frame: pd.DataFrame) -> Entry:
    """What a forecast says of its data: the hash, the rows, and of each variant the largest compute and its ends."""
    parts = {str(variant): part for variant, part in frame.groupby("variant")}
    tops = {variant: float(part["C"].max()) for variant, part in parts.items()}
    ends = {variant: _ends_of(part) for variant, part in parts.items()}
    return {"hash": data_hash(frame), "rows": len(frame), "flops": tops, "ends": ends}


def _ends_of(part: pd.DataFrame) -> str:
    """A hash of where the runs of a variant ended, which no choice of earlier rows and no name of a run changes."""
    last = part.sort_values("C", kind="stable")
    last = last.groupby("run").tail(1) if "run" in last else last
    return hashlib.sha256(last[["C", "L"]].to_csv(index=False, float_format="%.10g").encode()).hexdigest()[:16]


def _terms(laws: Laws) -> Entry:
    """In which terms laws speak: predictions in others cannot be held against them."""
    frame, choices = laws.points.frame, laws.choices
    said = {"convention": choices.convention, "metric": choices.metric}
    if laws.baseline is not None:
        said["baseline"] = laws.baseline
    named = {name: sorted(map(str, frame[name].dropna().unique())) for name in ("task", "data") if name in frame}
    return said | {name: ", ".join(values) for name, values in named.items() if values}


def code() -> str:
    """Version, and the commit of the code inside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"structlin {__version__}"
    return f"structlin {__version__}, {done.stdout.strip()}"


def keep(laws: Laws, found: Entry, name: str, folder: Path = FOLDER) -> Path:
    """Write a forecast of these laws; its predictions are those asked for, or some ahead of the data."""
    predictions = found["predictions"]
    if not predictions:
        top = float(laws.points.frame["C"].max())
        predictions = predict(laws, [float(f"{top * ahead:.3g}") for ahead in _AHEAD])
    path = folder / f"{name}.json"
    if path.exists():
        raise UserError(f"forecast={name}: {path} is kept already, and a forecast is not written twice; another name")
    law = {key: found[key] for key in ("form", "parametric", "frontier")}
    write(path, data_of(laws.points.frame) | {"terms": _terms(laws)}, laws.choices.confidence, law, predictions)
    return path


def write(path: Path, data: Entry, confidence: float, law: Entry, predictions: list[Entry]) -> None:
    """A forecast of today: predictions as in laws/predictions.py, of data as ``data_of`` says."""
    forecast = {
        "name": path.stem,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "code": code(),
        "data": data,
        "confidence": confidence,
        "law": law,
        "predictions": predictions,
    }
    write_atomically(path, _text(forecast))


def _text(found: Entry) -> bytes:
    from structlin.laws.report.laws_json import plain

    return (json.dumps(plain(found), indent=1, allow_nan=False) + "\n").encode()


def read(path: Path) -> Entry:
    """A kept forecast. UserError where there is none."""
    try:
        found: Entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"score={path} cannot be read: {error.strerror}; keep one first with forecast=NAME") from error
    except ValueError as error:
        raise UserError(f"score={path} is no forecast; keep one with forecast=NAME") from error
    if not _is_forecast(found):
        raise UserError(f"score={path} is no forecast; keep one with forecast=NAME")
    return found


def _is_forecast(found: object) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("data", {}), dict):
        return False
    if any(not isinstance(found.get("data", {}).get(name, {}), dict) for name in ("ends", "terms")):
        return False
    predictions = found.get("predictions")
    return isinstance(predictions, list) and all(map(_is_prediction, predictions))


def _is_prediction(one: object) -> bool:
    """Whether an entry has a variant, and positive numbers or nothing; an interval may begin at 0."""
    if not isinstance(one, dict) or not isinstance(one.get("variant"), str):
        return False
    intervals = one.get("interval") or {}
    if not isinstance(intervals, dict) or not all(
        ends is None or isinstance(ends, dict) for ends in intervals.values()
    ):
        return False
    numbers = [one.get(name) for name in ("flops", "loss", "multiplier")]
    limits = [ends.get(name) for ends in intervals.values() if ends for name in ("low", "high")]
    sound = all(value is None or _is_number(value) for value in (*numbers, *limits))
    return sound and all(value is None or value > 0 for value in numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _comparable(laws: Laws, forecast: Entry, path: Path) -> None:
    """UserError for runs that it was made from, and for laws in other terms than its own."""
    data = forecast.get("data", {})
    mine = data_of(laws.points.frame)
    same_ends = "ends" in data and data["ends"].items() >= mine["ends"].items()
    if data.get("hash") == mine["hash"] or same_ends:
        raise UserError(f"score={path}: these are the runs it was made from; score it by later ones")
    here, there = _terms(laws), data.get("terms", {})
    for name in there:
        if name in here and here[name] != there[name]:
            raise UserError(
                f"score={path} foretold with {name}={there[name]}, and these laws are of {name}={here[name]}: "
                "numbers of the two cannot be compared; score it by runs, and with choices, that are the same"
            )


def score(laws: Laws, path: Path) -> Entry:
    """What these runs say to a forecast, and the record of all forecasts with it.

    UserError for the runs that it was made from, and for laws in other terms: convention, metric, baseline, task, data.

    {"forecast", "scores": [{variant, flops, predicted, measured, error, inside, multiplier}], "winners": [{flops,
    predicted, measured}], "waiting", "record": {...}}; a multiplier {predicted, measured, inside} where the baseline
    reached the loss, winners at every compute where two variants or more were scored.
    """
    forecast = read(path)
    _comparable(laws, forecast, path)
    known = forecast.get("data", {}).get("ends", {})
    scores, waiting = [], []
    for one in forecast["predictions"]:
        is_known = one["variant"] in known and known[one["variant"]] == _ends_of(laws.points.of(one["variant"]))
        measured = None if is_known else _measured(laws, one)
        label = f"{one['variant']} at {one['flops']:.3g} FLOPs" if one.get("flops") else str(one["variant"])
        if measured is None or not one.get("loss"):
            waiting.append(label)
            continue
        scores.append(
            {"variant": one["variant"], "flops": one["flops"], "predicted": one["loss"], "measured": measured,
             "error": float(np.log(one["loss"] / measured)), "inside": _inside(one, "loss", measured),
             "multiplier": _multiplier(laws, one, measured)}
        )  # fmt: skip
    return {
        "forecast": forecast.get("name", path.stem), "date": forecast.get("date"),
        "confidence": forecast.get("confidence"), "scores": scores, "winners": _winners(scores), "waiting": waiting,
        "record": _recorded(path, forecast, scores),
    }  # fmt: skip


def _inside(one: Entry, quantity: str, measured: float) -> bool | None:
    """Whether a predicted interval holds what was measured, None as an end being open; None where there is none."""
    ends = (one.get("interval") or {}).get(quantity) or {}
    low, high = ends.get("low"), ends.get("high")
    if low is None and high is None:
        return None
    return bool((low is None or low <= measured) and (high is None or measured <= high))


def _multiplier(laws: Laws, one: Entry, loss: float) -> Entry | None:
    """The multiplier that was predicted at a compute, and the baseline's compute at the measured loss over it."""
    if laws.baseline not in laws.points.variants or one["variant"] == laws.baseline or not one.get("multiplier"):
        return None
    x, y = _frontier(laws, str(laws.baseline))
    if not y.min() <= np.log(loss) <= y.max():
        return None
    measured = float(np.exp(np.interp(np.log(loss), y[::-1], x[::-1]))) / float(one["flops"])
    return {
        "predicted": one["multiplier"], "measured": measured, "inside": _inside(one, "multiplier", measured)
    }  # fmt: skip


def _winners(scores: list[Entry]) -> list[Entry]:
    """The variant of the lowest loss, predicted and measured, at every compute with two or more."""
    at: dict[float, list[Entry]] = {}
    for one in scores:
        at.setdefault(one["flops"], []).append(one)
    return [
        {
            "flops": flops,
            **{key: min(some, key=lambda one: float(one[key]))["variant"] for key in ("predicted", "measured")},
        }
        for flops, some in sorted(at.items())
        if len(some) > 1
    ]


def _measured(laws: Laws, one: Entry) -> float | None:
    """The frontier of the runs at a predicted compute; None where they did not get there."""
    flops = one.get("flops")
    if flops is None or one["variant"] not in laws.points.variants:
        return None
    computes = laws.points.of(one["variant"])["C"].to_numpy(float)
    if not computes.min() <= flops <= computes.max() * _NEAR:
        return None
    x, y = _frontier(laws, one["variant"])
    return float(np.exp(np.interp(np.log(flops), x, y)))


def _frontier(laws: Laws, variant: str) -> tuple[Array, Array]:
    """Log compute and log loss of a variant's lower hull, rising and falling."""
    frame = laws.points.of(variant)
    x, y = np.log(frame["C"].to_numpy(float)), np.log(frame["L"].to_numpy(float))
    low = lower_hull(x, y)
    return x[low], y[low]


def _record(place: Path) -> tuple[list[Entry], list[Entry]]:
    """Scores and winners that stand in a record. UserError for a file that is none."""
    try:
        there = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {"scores": []}
        record, named = there["scores"], there.get("winners", [])
        sound = all(
            {"forecast", "variant", "inside"} <= set(one) and all(_is_number(one[name]) for name in _NUMBERS)
            for one in record
        ) and all({"forecast", "flops", "predicted", "measured"} <= set(one) for one in named)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{place} is torn; move it away, and score again")
    return record, named


def _recorded(path: Path, forecast: Entry, scores: list[Entry]) -> Entry:
    """Add the scores to the record beside the forecast, and sum up all that stand there."""
    place = path.parent / RECORD
    record, named = _record(place)
    name = forecast.get("name", path.stem)
    kept = {(one["forecast"], one["variant"], one["flops"]): one for one in record}
    for one in scores:
        kept[name, one["variant"], one["flops"]] = {"forecast": name, **one}
    entries = list(kept.values())
    # Of all its scores, those of earlier runs too: a second look at one variant forgets no winner.
    winners = _winners([one for one in entries if one["forecast"] == name])
    named = [one for one in named if one["forecast"] != name] + [{"forecast": name, **one} for one in winners]
    write_atomically(place, _text({"scores": entries, "winners": named}))
    judged = [one for one in entries if one["inside"] is not None]
    errors = [abs(one["error"]) for one in entries]
    return {
        "forecasts": len({one["forecast"] for one in entries}), "predictions": len(entries),
        "inside": sum(one["inside"] for one in judged), "with_interval": len(judged),
        "median_error": float(np.median(errors)) if errors else None,
    }  # fmt: skip
