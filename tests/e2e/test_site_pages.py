"""Pages of the site in a real browser: no fault by axe-core, no sideways scrolling on a phone, no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.accessibility import faults
from tests.e2e.chromium import Chromium

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PAGES = ["index", "quickstart", "cluster", "reference", "extending/structure"]
"""Text, pictures, tables, code with every colour."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_axe_finds_no_fault(page: str, scheme: str, site: Path) -> None:
    assert faults(site / f"{page}.html", 1400, scheme) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_needs_no_sideways_scrolling(page: str, site: Path) -> None:
    with Chromium(390, 844, mobile=True) as browser:
        browser.open(site / f"{page}.html")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests)
