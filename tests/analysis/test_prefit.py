"""Laws fitted side by side are those fitted one by one, and are fitted where they are needed alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from analysis import prefit
from analysis.make import Maker
from structlin.laws.choices import Choices
from tests.analysis import tables
from tests.analysis.test_kept import put

CHOICES = Choices(bootstrap=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for study, factor in (("regression", 1.5), ("pixels", 1.2)):
        put(tmp_path, study, tables.runs({"dense": 1.0, "btt": factor}, task=study), [])
    return tmp_path


def test_laws_are_the_same_as_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    maker, alone = Maker(CHOICES, folder=folder), Maker(CHOICES, folder=folder)
    prefit.prefit(maker, ["fig5-regression", "fig5-pixels", "exponents", "fig2"])
    assert set(maker._laws) == {("regression", "dense"), ("pixels", "dense")}
    for study, base in maker._laws:
        runs = maker.kept(study).runs
        for variant, law in alone.laws(study, runs, base).multipliers.items():
            found = maker.laws(study, runs, base).multipliers[variant]
            assert (found.mean, found.mean_interval.low) == (law.mean, law.mean_interval.low)


def test_one_core_or_one_study_starts_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefit, "ProcessPoolExecutor", None)
    maker = Maker(CHOICES, folder=folder)
    prefit.prefit(maker, ["fig5-regression", "exponents"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    prefit.prefit(maker, ["fig5-regression", "fig5-pixels"])
    assert maker._laws == {}
