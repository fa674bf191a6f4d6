"""How well is the top decade of a table foretold from the rows below it?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bench.planted.misfits import COUPLED, POWERED, Misfit, mistuned, repeated
from bench.planted.sweeps import fitted
from structlin.laws.approaches.hull import lower_hull
from structlin.laws.checks.backtest import backtest

DATA = Path(__file__).parents[2] / "analysis" / "data"


def decades(sweeps: int) -> None:
    """Median error of the top decade, foretold from below it: every form, the hull's law, and what is printed."""
    designs = {
        "additive": Misfit("", sizes=10), "powered": Misfit("", POWERED, 10), "coupled": Misfit("", COUPLED, 10),
        "repeated": Misfit("", sizes=10, spoil=lambda t, g: repeated(t, g).drop(columns="epochs")),
        "mistuned": Misfit("", sizes=10, spoil=mistuned),
    }  # fmt: skip
    columns = ("additive", "powered", "coupled", "chosen", "forecast", "hull", "corrected", "its hull")
    print(f"| tables, n | {' | '.join(columns)} | intervals held |\n|---|{'---|' * (1 + len(columns))}")
    for name, design in designs.items():
        generator = np.random.default_rng(3)
        _decades_of(name, [design.table(generator).assign(variant=name) for _ in range(sweeps)], columns)
    for study in ("fig4", "fig10", "fig6", "fig7", "regression", "pixels"):
        table = pd.read_parquet(DATA / f"{study}.parquet")
        named = {"macs_per_token": "params", "tokens": "tokens", "val_loss": "loss", "run_id": "run"}
        rows = table[~table["in_warmup"]].rename(columns=named)
        if study not in ("regression", "pixels"):
            rows = rows[rows["loss"] < 2.3689]
        _decades_of(study, [part[[*named.values(), "variant"]] for _, part in rows.groupby("variant")], columns)


def _decades_of(name: str, tables: list[pd.DataFrame], columns: tuple[str, ...]) -> None:
    """One line: medians over tables, and of how many where not of all."""
    errors: dict[str, list[float]] = {}
    for table in tables:
        for key, error in _decade(table).items():
            errors.setdefault(key, []).append(error)
    count = len(errors.get("hull", ()))
    shown = [
        f"{100 * np.median(errors[key]):.2f}%" + f" ({len(errors[key])})" * (len(errors[key]) < count)
        if key in errors else "-"
        for key in columns
    ]  # fmt: skip
    held = f"{100 * np.mean(errors['held']):.0f}%" if "held" in errors else "-"
    print(f"| {name}, {count} | {' | '.join(shown)} | {held} |", flush=True)


def _decade(table: pd.DataFrame) -> dict[str, float]:
    """Errors of one table: forms on all rows above the cut; forecast, hull and corrected on the frontier there."""
    flops = 6.0 * table["params"] * table["tokens"]
    top = max(flops.max() / 10.0, float(np.sqrt(flops.min() * flops.max())))
    past, future = table[flops <= top], table[flops > top]
    laws = fitted(past, bootstrap=100, mixed="pool", units={"loss": "nats"})
    variant = laws.points.variants[0]
    if variant not in laws.parametrics or variant not in laws.frontiers:
        return {}
    backtest(laws)
    choice, law = laws.parametrics[variant].choice, laws.frontiers[variant]
    n, d, y = (future[column].to_numpy(float) for column in ("params", "tokens", "loss"))
    errors = {form: float(np.mean(np.abs(np.log(fit.law.loss(n, d) / y)))) for form, fit in choice.fits.items()}
    errors["chosen"] = errors[choice.form]
    c = 6.0 * n * d
    low = lower_hull(np.log(c), np.log(y))

    def error(said: np.ndarray) -> float:
        return float(np.mean(np.abs(np.log(said / y[low]))))

    told = laws.predict(c[low].tolist())
    errors["forecast"] = error(np.array([one["loss"] for one in told], float))
    ends = [one["interval"]["loss"] if one["interval"] else None for one in told]
    if all(ends):
        inside = [one["low"] <= loss <= one["high"] for one, loss in zip(ends, y[low], strict=True) if one]
        errors["held"] = float(np.mean(inside))
    errors["hull"] = error(law.loss(c[low]))
    better = laws.corrected(variant)
    if better is not None:
        errors["corrected"] = error(better["E"] + better["A"] * c[low] ** -better["a"])
        errors["its hull"] = errors["hull"]
    return errors
