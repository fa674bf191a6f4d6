"""report.html in a real browser: it draws without a network, answers the pointer, hides structures, fits a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from structlin.laws import run
from structlin.laws.choices import Choices
from tests.e2e.accessibility import faults
from tests.e2e.chromium import Chromium
from tests.laws.tables import two

pytestmark = pytest.mark.browser

# A pixel that is not white counts as ink.
INK = """(id) => { const c = document.querySelector('#' + id + ' canvas');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
  for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 0 && d[i] + d[i + 1] + d[i + 2] < 600) n++; return n; }"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    two().to_csv(folder / "t.csv", index=False)
    choices = Choices(source="table", table=str(folder / "t.csv"), out=str(folder), bootstrap=50, figures=False)
    run.run(choices, quiet=True)
    return folder / "report.html"


def test_every_chart_is_drawn_without_a_network(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        charts = page.run("[...document.querySelectorAll('.plot')].map((e) => e.id)")
        assert {"frontier-0", "multipliers-0", "isoflop-0", "isoflop-1", "backtest-0", "residuals-0"} == set(charts)
        for chart in charts:
            assert page.run(f"({INK})('{chart}')") > 300, chart
        assert page.run("document.querySelector('main').firstElementChild.id") == "verdict"
        assert page.run("document.querySelectorAll('#warnings li').length") >= 1
        assert all(url.startswith(("file:", "data:")) for url in page.requests)
        assert page.faults == []


def test_pointer_shows_values(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        page.run("document.getElementById('multipliers-0').scrollIntoView({block: 'center'})")
        box = page.run("(() => { const r = document.querySelector('#multipliers-0 .u-over').getBoundingClientRect();"
                       "return [r.left, r.top, r.width, r.height]; })()")  # fmt: skip
        shown = set()
        for part in range(10):
            page.move(box[0] + box[2] * 0.5, box[1] + box[3] * (part + 0.5) / 10)
            shown.add(page.run("(() => { const t = document.querySelector('#multipliers-0 .tip');"
                               "return t.style.display === 'block' ? t.textContent : ''; })()"))  # fmt: skip
        texts = [text for text in shown if text]
        assert texts
        assert all("multiplier against dense: " in text and "FLOPs" in text for text in texts)


def test_toggles_hide_a_structure_everywhere(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        count = "Number(document.getElementById('frontier-0').dataset.series)"
        rows = "[...document.querySelectorAll('tr[data-variant=btt]')].filter((r) => r.offsetParent).length"
        before, shown = page.run(count), page.run(rows)
        page.run("document.querySelector('#toggles input[data-variant=btt]').click()")
        assert page.run(count) < before
        assert shown > 0
        assert page.run(rows) == 0
        page.run("document.querySelector('#toggles input[data-variant=btt]').click()")
        assert page.run(count) == before


def test_axes_change_between_log_and_linear(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        picture = "document.querySelector('#frontier-0 canvas').toDataURL()"
        before = page.run(picture)
        page.run("document.querySelector('.axes input').click()")
        assert page.run(picture) != before
        assert page.run(f"({INK})('frontier-0')") > 300
        assert page.faults == []


def test_a_phone_needs_no_sideways_scrolling(report: Path, tmp_path: Path) -> None:
    with Chromium(390, 844, mobile=True) as page:
        page.open(report)
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.run("document.querySelector('#frontier-0 canvas').getBoundingClientRect().width") > 300
        small = "[...document.querySelectorAll('p, li, td, th, label')].filter((e) => e.offsetParent &&"
        assert page.run(f"{small} parseFloat(getComputedStyle(e).fontSize) < 12).length") == 0
        assert page.run("[...document.querySelectorAll('#toggles label')].every((e) => e.offsetHeight >= 30)")
        page.picture(tmp_path / "phone.png")
        assert (tmp_path / "phone.png").stat().st_size > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_no_fault(report: Path, scheme: str, width: int) -> None:
    assert faults(report, width, scheme) == []


def test_a_dark_page_is_dark_and_its_ink_light(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.emulate("dark")
        page.open(report)
        shades = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert max(shades) < 60
        light = "d[i + 3] > 0 && d[i] + d[i + 1] + d[i + 2] > 450"
        ink = INK.replace("d[i + 3] > 0 && d[i] + d[i + 1] + d[i + 2] < 600", light)
        assert page.run(f"({ink})('frontier-0')") > 300


def test_arrow_keys_read_the_values(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        press = (
            "(key) => { const e = document.getElementById('frontier-0');"
            "e.focus(); e.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));"
            "return document.getElementById('said').textContent; }"
        )
        said = [page.run(f"({press})('{key}')") for key in ("ArrowRight", "ArrowRight", "ArrowDown")]
        assert len(set(said)) == 3
        assert all("FLOPs" in text and "loss" in text for text in said)


def test_every_chart_has_a_text_alternative(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        labels = page.run("[...document.querySelectorAll('.plot')].map((e) => e.getAttribute('aria-label'))")
        assert all("chart of" in label and "series" in label for label in labels)
        rows = page.run(
            "(() => { const d = document.querySelector('#frontier-0').parentElement.querySelector('.numbers');"
            "d.open = true; return new Promise((r) => setTimeout(() =>"
            " r(d.querySelectorAll('tbody tr').length), 300)); })()"
        )
        assert rows > 10


def test_isoflop_curves_have_a_key(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        key = page.run(
            "[...document.querySelector('#isoflop-0').parentElement.querySelectorAll('.key li')]"
            ".map((e) => e.textContent)"
        )
        assert len(key) > 1
        assert all("FLOPs" in text for text in key)


def test_the_page_says_of_what_and_when_it_is(report: Path) -> None:
    with Chromium(1200, 900) as page:
        page.open(report)
        facts = page.run(
            "Object.fromEntries([...document.querySelectorAll('.about dt')]"
            ".map((e) => [e.textContent, e.nextSibling.textContent]))"
        )
        assert set(facts) >= {"date", "data", "code"}
        assert "evaluations of" in facts["data"]
        assert page.run("document.querySelector('#warnings details').open") is False


def test_print_is_light_has_no_boxes_and_nothing_folded(report: Path, tmp_path: Path) -> None:
    with Chromium(1200, 900) as page:
        page.emulate("dark")
        page.open(report)
        page.run("window.addEventListener('beforeprint', () => { window.seen = [...document.querySelectorAll("
                 "'details:not(.numbers)')].map((e) => e.open); window.back = getComputedStyle(document.body)"
                 ".backgroundColor; })")  # fmt: skip
        pdf = page.print(tmp_path / "page.pdf")
        assert pdf.stat().st_size > 20_000
        assert page.run("window.seen.length > 0 && window.seen.every(Boolean)")
        assert page.run("[...document.querySelectorAll('details')].every((e) => !e.open)")
