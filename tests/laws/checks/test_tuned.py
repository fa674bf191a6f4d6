"""Laws of the learning rate, of the batch and of mixtures: planted ones are found, with their intervals."""

import numpy as np
import pandas as pd
import pytest

from structlin.laws.checks.mixtures import mixtures
from structlin.laws.checks.rates import law_of, optima_of, rates
from structlin.laws.library import fit
from tests.laws.tables import DENSE


def tuned(column: str, values: np.ndarray, best: float, n: float, d: float) -> pd.DataFrame:
    """Finished runs over sizes, tokens and values; the best value is best (N / 1e7)^n (D / 1e9)^d."""
    generator = np.random.default_rng(0)
    size, tokens, value = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 4), [1e9, 1e10, 1e11], values, indexing="ij")
    )
    at = best * (size / 1e7) ** n * (tokens / 1e9) ** d
    loss = DENSE.loss(size, tokens) * (1 + 0.01 * np.log(value / at) ** 2)
    loss *= np.exp(0.0003 * generator.standard_normal(len(size)))
    return pd.DataFrame({"params": size, "tokens": tokens, "loss": loss, column: value, "run": range(len(size))})


@pytest.mark.parametrize(
    ("column", "name", "values", "best", "powers"),
    [
        ("lr", "learning rate", np.geomspace(1e-4, 1e-1, 9), 3e-3, (-0.2, -0.05)),
        ("batch_tokens", "batch", np.geomspace(1e4, 1e8, 9), 1e6, (0.1, 0.3)),
    ],
)
def test_planted_powers_of_rate_and_batch_are_held(
    column: str, name: str, values: np.ndarray, best: float, powers: tuple[float, float]
) -> None:
    laws = fit(tuned(column, values, best, *powers), best_of=[column], bootstrap=20)
    law = rates(laws)["all"][name]
    for key, power in zip(("size", "tokens"), powers, strict=True):
        ends = law["interval"][key]
        assert law[key] == pytest.approx(power, abs=0.02)
        assert ends["low"] <= power <= ends["high"]
        assert ends["high"] - ends["low"] < 0.1
    assert len(law["optima"]) == 12


def test_an_optimum_at_an_end_of_its_values_is_none() -> None:
    x = np.geomspace(1e-3, 1e-1, 5)
    frame = pd.DataFrame({"N": 1e6, "D": 1e9, "L": [1.0, 2.0, 3.0, 4.0, 5.0], "learning_rate": x, "run": range(5)})
    (one,) = optima_of(frame, "learning_rate")
    assert (one["value"], one["edge"]) == (None, "lowest")
    assert law_of([one], 0.9)["size"] is None


def test_too_few_values_give_no_optimum() -> None:
    frame = pd.DataFrame({"N": 1e6, "D": 1e9, "L": [2.0, 1.0], "learning_rate": [0.1, 0.2], "run": [0, 1]})
    assert list(optima_of(frame, "learning_rate")) == []


def routed(zeta: float, eta: float = 0.0) -> pd.DataFrame:
    """A plain model and mixtures of 4, 8 and 16 experts, coarse and fine where eta is planted."""
    generator, rows = np.random.default_rng(0), []
    for experts in (1, 4, 8, 16):
        for g in (1.0, 4.0) if eta and experts > 1 else (1.0,):
            for n in np.geomspace(1e7, 3e8, 5):
                luck, total = 0.002 * generator.standard_normal(), n * (1 + 0.8 * (experts - 1))
                for d in np.geomspace(2e9, 2e11, 6):
                    effect = (total / n) ** -zeta * g**-eta
                    loss = DENSE.E + DENSE.A * effect * n**-DENSE.alpha + DENSE.B * d**-DENSE.beta
                    name = "dense" if experts == 1 else f"moe{experts}"
                    rows.append((name, n, total, experts, g, d, loss * np.exp(luck), f"{experts}-{g}-{n:.0f}"))
    names = ["arch", "params_active", "params_total", "experts", "granularity", "tokens", "loss", "run"]
    table = pd.DataFrame(rows, columns=names)
    return table if eta else table.drop(columns="granularity")


@pytest.mark.parametrize(("zeta", "eta"), [(0.08, 0.0), (0.08, 0.03)])
def test_a_planted_mixture_is_worth_what_its_experts_were_given(zeta: float, eta: float) -> None:
    found = mixtures(fit(routed(zeta, eta), bootstrap=60))["moe"]
    assert found["zeta"] == pytest.approx(zeta, abs=0.01)
    assert found["interval"]["zeta"]["low"] <= zeta <= found["interval"]["zeta"]["high"]
    if eta:
        assert found["eta"] == pytest.approx(eta, abs=0.01)
        return
    for one in found["multipliers"]:
        planted = one["ratio"] ** (zeta / DENSE.alpha)
        assert one["multiplier"] == pytest.approx(planted, rel=0.05)
        assert one["interval"]["low"] < one["multiplier"] < one["interval"]["high"]
    assert [one["experts"] for one in found["multipliers"]] == [4, 8, 16]


def test_tables_without_mixtures_have_no_law_of_them() -> None:
    table = routed(0.08)
    plain = table[table["arch"] == "dense"].drop(columns=["params_total", "experts"])
    assert mixtures(fit(plain, bootstrap=20)) == {}
