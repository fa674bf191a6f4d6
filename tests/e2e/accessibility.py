"""What does axe-core find in a page? It is fetched by npm (make test-browser); without it these tests are skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chromium import Chromium

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("moderate", "serious", "critical")


def faults(path: Path, width: int, scheme: str) -> list[Any]:
    """Violations of a page that are more than minor, everything folded out."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: make test-browser")
    with Chromium(width, 900, mobile=width < 500) as page:
        page.emulate(scheme)
        page.open(path)
        page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.run(f"{AXE.read_text()};0")
        found = page.run("axe.run().then((r) => r.violations.map((v) => [v.id, v.impact, v.nodes[0].html]))")
    return [one for one in found if one[1] in GRAVE]
