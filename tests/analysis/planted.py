"""Fixtures of planted laws, fitted once for all tests that import them."""

from functools import cache

import pytest

from structlin.laws.approaches.fit import fit_laws
from structlin.laws.choices import Choices
from structlin.laws.run import read
from tests.analysis import tables


@cache
def planted(kind: str, baseline: str = "dense") -> tuple:
    """(runs, laws) of one of the planted tables."""
    gains = {"taxonomy": tables.TAXONOMY, "mixtures": tables.MIXTURES, "heads": tables.HEADS}[kind]
    runs = tables.runs(gains, task="regression" if kind == "regression" else "language")
    choices = Choices(bootstrap=20, baseline=baseline)
    return runs, fit_laws(read(choices, runs), choices)


@pytest.fixture
def taxonomy() -> tuple:
    """(runs, laws) of ten structures."""
    return planted("taxonomy", "dense")


@pytest.fixture
def mixtures() -> tuple:
    """(runs, laws) of dense, btt and seven mixtures."""
    return planted("mixtures", "dense")


@pytest.fixture
def heads() -> tuple:
    """(runs, laws) of the naive and the head-aware BTT."""
    return planted("heads", "btt")
