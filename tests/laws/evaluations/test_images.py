"""Laws of errors, of evaluations at equal epochs, and of data that were read more than once."""

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws.choices import Choices, parse
from structlin.laws.evaluations.own import from_runs
from structlin.laws.evaluations.source import from_table
from structlin.laws.report.curves import loss_label
from structlin.laws.verdict import verdicts
from tests.laws.tables import laws_of, laws_of_runs, names, own, two

QUICK = {"bootstrap": 20, "count_below": "none"}


def images(unique: float = 1e9) -> pd.DataFrame:
    """Runs on so many unique tokens, with errors that are a tenth of the losses."""
    table = own().assign(task="classification", train_error=lambda t: 0.1 * t["val_loss"])
    return table.assign(val_error=lambda t: 0.11 * t["val_loss"], epochs=lambda t: t["tokens"] / unique)


@pytest.mark.parametrize(("metric", "share"), [("train_error", 0.1), ("val_error", 0.11)])
def test_a_metric_takes_the_place_of_the_loss(metric: str, share: float) -> None:
    """With everything that follows from it: the frontier falls as before, at a tenth of the height."""
    table = images(1e15)
    laws, plain = laws_of_runs(table, metric=metric, **QUICK), laws_of_runs(table, **QUICK)
    assert laws.points.frame["L"].to_numpy() == pytest.approx(share * plain.points.frame["L"].to_numpy())
    for variant in ("dense", "btt"):
        found, reference = laws.frontiers[variant], plain.frontiers[variant]
        assert found.a == pytest.approx(reference.a, rel=1e-3)
        assert pytest.approx(share * reference.E, rel=1e-3) == found.E
    assert loss_label(laws.points.frame).startswith("training error" if metric == "train_error" else "validation error")
    assert loss_label(plain.points.frame) == "validation loss, nats per image"
    assert "an error of" in verdicts(laws)["btt"]
    assert "nats" in verdicts(plain)["btt"]


def test_a_foreign_table_s_column_of_that_name_is_read() -> None:
    table = two().assign(val_error=lambda t: 0.1 * t["loss"])
    chosen = Choices(source="table", table="memory.csv", metric="val_error")
    assert from_table(table, chosen)[0]["L"].to_numpy() == pytest.approx(0.1 * table["loss"].to_numpy())


def test_a_metric_that_runs_do_not_have_is_told() -> None:
    with pytest.raises(UserError, match=r"metric=val_error: these runs lack that column; runs of task=classification"):
        from_runs(own(), Choices(metric="val_error"))
    with pytest.raises(UserError, match="metric=error is not known"):
        parse(["metric=error"])


@pytest.mark.parametrize("wanted", [3.0, 8.0])
def test_equal_epochs_take_one_evaluation_a_run(wanted: float) -> None:
    table = images()
    table["epochs"] = table.groupby("run_id").cumcount() + 1.02
    laws = laws_of_runs(table, epochs=wanted, **QUICK)
    frame = laws.points.frame
    assert frame["run"].is_unique
    assert frame["run"].nunique() == table["run_id"].nunique()
    assert np.abs(np.log(frame["epochs"] / wanted)).max() < 0.06
    assert laws.points.choices["epochs"] == wanted


def test_epochs_that_no_run_has_are_told() -> None:
    with pytest.raises(UserError, match=r"epochs=1e\+09: no evaluation is within 6% of it; these runs have"):
        laws_of_runs(images(), epochs=1e9, **QUICK)
    with pytest.raises(UserError, match="how often these runs read their data is not known"):
        laws_of_runs(own(), epochs=2.0, **QUICK)
    with pytest.raises(UserError, match=r"epochs=0\.0 must be a positive number"):
        parse(["epochs=0"])


def test_repeated_data_wants_its_worth_to_be_fitted() -> None:
    """Where the epochs of some rows are not known it cannot be, and L(N, D) is refused; else it is part of the law."""
    table = two().assign(epochs=lambda t: t["tokens"] / 1e9)
    known = laws_of(table, **QUICK)
    assert known.parametrics["dense"].repeat is not None
    unknown = laws_of(table.assign(epochs=table["epochs"].where(table.index % 7 != 0)), **QUICK)
    assert not unknown.parametrics
    assert "repeated_data" in names(unknown)
    assert set(unknown.frontiers) == {"dense", "btt"}
    fresh = laws_of(table.assign(epochs=0.5), **QUICK)
    assert fresh.parametrics["dense"].repeat is None
    assert "repeated_data" not in names(fresh)


def test_the_memory_of_training_is_16_bytes_a_parameter_and_the_activations() -> None:
    frame = from_runs(own(), Choices())[0]
    table = own()
    size = table["macs_per_token"].to_numpy(float)  # whose weights take 4 bytes each, and activations 2
    assert frame["memory"].to_numpy() == pytest.approx((16 + 2) * size)
