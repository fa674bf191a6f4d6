"""The page of a sweep in a real browser: it draws, fits a phone, has no fault by axe-core, can be held still."""

from __future__ import annotations

from pathlib import Path
from time import sleep

import pytest

from structlin.launch.status_page import find, look, page
from tests.e2e.accessibility import faults
from tests.e2e.chromium import Chromium
from tests.launch.test_status_page import store

pytestmark = pytest.mark.browser
__all__ = ["store"]


@pytest.fixture
def written(store: Path, tmp_path: Path) -> Path:
    path = tmp_path / "status.html"
    manifest = find(store, "three")
    path.write_text(page(manifest, look(store, manifest), store, 30))
    return path


def test_it_draws_and_fits_a_phone(written: Path) -> None:
    with Chromium(390, 844, mobile=True) as browser:
        browser.open(written)
        assert browser.run("document.querySelectorAll('canvas').length") == 1
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(written: Path, scheme: str) -> None:
    assert faults(written, 1400, scheme) == []


@pytest.mark.parametrize("is_held", [False, True])
def test_it_comes_anew_unless_it_is_held(written: Path, is_held: bool) -> None:
    written.write_text(written.read_text().replace('data-seconds="30"', 'data-seconds="1"'))
    with Chromium(1200, 900) as browser:
        browser.open(written)
        browser.run(f"document.getElementById('reload').checked = {str(not is_held).lower()}")
        loaded = browser.run("performance.timeOrigin")
        sleep(2.5)
        assert (browser.run("performance.timeOrigin") == loaded) is is_held
