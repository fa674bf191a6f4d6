"""The page of a sweep in a real browser: it draws, fits a phone and has no serious fault by axe-core."""

from __future__ import annotations

from pathlib import Path

import pytest

from structlin.launch.status_page import find, look, page
from tests.e2e.accessibility import serious_faults
from tests.e2e.chromium import Chromium
from tests.launch.test_status_page import store

pytestmark = pytest.mark.browser
__all__ = ["store"]


@pytest.fixture
def written(store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "status.html"
    manifest = find(store, "three")
    path.write_text(page(manifest, look(store, manifest), store, 0))
    return path


def test_it_draws_and_fits_a_phone(written: Path) -> None:
    with Chromium(390, 844, mobile=True) as browser:
        browser.open(written)
        assert browser.run("document.querySelectorAll('canvas').length") == 1
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(written: Path, scheme: str) -> None:
    assert serious_faults(written, 1400, scheme) == []
