"""Pages of figures in a real browser: drawn without a network, bars and intervals too, readable on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import make, report
from analysis.figures import fig1, fig7
from structlin.drawing import charts as page
from structlin.laws.choices import Choices
from tests.analysis import tables
from tests.analysis.planted import planted
from tests.analysis.test_kept import put
from tests.e2e.accessibility import faults
from tests.e2e.chromium import Chromium
from tests.e2e.test_report_page import INK

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [390, 1100])
def test_bars_and_frontiers_are_drawn(width: int, tmp_path: Path) -> None:
    drawing = fig7.draw(*planted("mixtures"))
    (tmp_path / "fig7.html").write_text(page.page(drawing))
    (tmp_path / "fig1.html").write_text(page.page(fig1.draw(*planted("taxonomy"))))
    with Chromium(width, 900, mobile=width < 500) as browser:
        browser.open(tmp_path / "fig7.html")
        assert browser.run(f"({INK})('fig7-0')") > 3000
        before = browser.run("Number(document.getElementById('fig7-0').dataset.series)")
        browser.run("document.querySelector('#toggles input').click()")
        assert browser.run("Number(document.getElementById('fig7-0').dataset.series)") < before
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.faults == []
    with Chromium(width, 900, mobile=width < 500) as browser:
        browser.open(tmp_path / "fig1.html")
        assert browser.run("document.querySelectorAll('.stills img').length") == 1
        assert browser.run("[...document.querySelectorAll('.stills img')].every((e) => e.naturalWidth > 300)")
        assert browser.run(f"({INK})('fig1-1')") > 300
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert all(url.startswith(("file:", "data:")) for url in browser.requests)
        assert browser.faults == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all figures of two studies."""
    folder = tmp_path_factory.mktemp("whole")
    put(folder, "regression", tables.runs({"dense": 1.0, "btt": 1.5}, task="regression"), ["btt at width 16"])
    put(folder, "learning_rates", tables.landscape(), [])
    maker = make.Maker(Choices(bootstrap=20), folder=folder)
    figures, found = report.drawings(maker), report.studies(maker)
    (folder / "report.html").write_text(report.html(figures, found))
    return folder / "report.html"


def test_the_report_of_all_figures_fits_a_phone(whole: Path) -> None:
    with Chromium(390, 844, mobile=True) as browser:
        browser.open(whole)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        charts = browser.run(
            "[...document.querySelectorAll('.plot')].map((e) => [e.id, e.parentElement.parentElement.id])"
        )
        assert all(host.startswith("host-") and chart.startswith(host.removeprefix("host-")) for chart, host in charts)
        for chart, _ in charts:
            assert browser.run(f"({INK})('{chart}')") > 150, chart
        assert all(url.startswith(("file:", "data:")) for url in browser.requests)
        assert browser.faults == []


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (390, "light")])
def test_axe_finds_no_fault_in_the_report_of_all_figures(width: int, scheme: str, whole: Path) -> None:
    assert faults(whole, width, scheme) == []
