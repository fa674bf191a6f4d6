"""How does the report stand on paper? Pages of one size: a cover, the figures with captions, each study's numbers."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from structlin.drawing.drawing import Drawing
from structlin.drawing.names import readable, shared
from structlin.drawing.paint import printed, text_pages
from structlin.drawing.sheet import Rows
from structlin.drawing.style import RC, ordered
from structlin.host import code
from structlin.laws.approaches.multiplier import MEANS
from structlin.laws.caution import CAUTIONS
from structlin.laws.report.console import grouped, number, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HASH = 12
"""Characters of a commit or a digest that name it on paper."""
HASHES = ("code", "data_manifest")


@dataclass(frozen=True)
class Study:
    """What the runs of a study say."""

    name: str
    runs: pd.DataFrame
    found: dict[str, Any] | None
    """As in laws.json; None where the study is not one of frontiers."""
    origin: dict[str, Any]
    """Where the runs come from."""

    @property
    def title(self) -> str:
        """For people."""
        return "The runs" if self.name == "own" else f"study={self.name}"

    @property
    def variants(self) -> list[str]:
        """Of its laws, in the order of legends."""
        return [] if self.found is None else ordered(self.found["data"])

    @property
    def answers(self) -> dict[str, list[str]]:
        """Who needs less compute than the baseline, who more, and who is not told from it, with mean multipliers."""
        known = {} if self.found is None else self.found["multipliers"]
        base = "" if self.found is None else self.called(self.found["choices"]["baseline_used"])
        told: dict[str, list[str]] = {}
        for variant in sorted(known, key=lambda name: -float(known[name]["mean"])):
            ends = known[variant]["interval"]["mean"] or {"low": None, "high": None}
            low, high = (math.nan if ends[end] is None else float(ends[end]) for end in ("low", "high"))
            side = (
                f"less compute than {base}" if low > 1 else f"more than {base}" if high < 1 else f"not told from {base}"
            )
            told.setdefault(side, []).append(f"{self.called(variant)} {number(known[variant]['mean'])} {span(ends)}")
        return told

    def called(self, variant: str) -> str:
        """A variant in words, by what tells it apart from the study's others."""
        return readable(variant, self.variants)


def pdf(title: str, figures: Sequence[Drawing], found: Sequence[Study]) -> bytes:
    """The report for print, all pages A4 and numbered; the same runs give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    stream = io.BytesIO()
    metadata = {"Title": title, "CreationDate": None}
    with matplotlib.rc_context(RC), PdfPages(stream, metadata=metadata) as pages:
        for place, one in enumerate(_pages(title, figures, found), 1):
            one.text(0.5, 0.025, f"{title} · {place}", fontsize=7, ha="center", color="0.35")
            pages.savefig(one)
    return stream.getvalue()


def _pages(title: str, figures: Sequence[Drawing], found: Sequence[Study]) -> Iterator[Figure]:
    """The cover, which knows where the figures stand; the figures; the studies."""
    drawn = list(printed(figures))
    # Its entries are there before their pages are known, so the number of its own pages is too.
    first = 1 + len(list(text_pages(title, cover(found, dict.fromkeys((one.title for one in figures), 0)))))
    places = {one.title: place for place, (_, held) in enumerate(drawn, first) for one in held}
    yield from text_pages(title, cover(found, places))
    yield from (figure for figure, _ in drawn)
    for study in found:
        yield from text_pages(study.title, study_lines(study))


def cover(found: Sequence[Study], places: dict[str, int]) -> list[str]:
    """What the report is, of what, and on which page each figure stands."""
    lines = [code.said(), ", ".join(f"{one.name}: {one.runs['run_id'].nunique()} runs" for one in found)]
    lines += ["", "# What the studies say: compute of the baseline over that of a structure, at equal loss"]
    for study in found:
        if study.answers:
            lines += ["", study.title, *(f"  {side}: {', '.join(names)}" for side, names in study.answers.items())]
    lines += ["", "# Figures", ""]
    lines += [f"  {place:>3}  {title}" for title, place in places.items()]
    return lines


def study_lines(study: Study) -> list[str]:
    """Verdict, multipliers, laws, sensitivity, warnings and provenance as lines."""
    lines: list[str] = []
    if study.found is not None:
        common = shared(study.variants)
        lines += [common, ""] if common else []
        lines += ["# Verdict", *(f"  {study.found['verdict'][variant]}" for variant in study.variants)]
        base = study.called(study.found["choices"]["baseline_used"])
        lines += ["", f"# Compute multiplier against {base}; mean {MEANS[study.found['choices']['procedure']]}"]
        lines += _multipliers(study)
        lines += ["", "# Frontier law L = E + A C^-a (a corrected where it is believed)", *_frontiers(study)]
        lines += ["", "# Sensitivity of the mean multipliers", *_sensitivity(study)]
        lines += ["", f"# Warnings ({len(study.found['warnings'])})", *_warnings(study)]
    return [*lines, "", "# Provenance", *(f"  {key}: {_shorter(key, said)}" for key, said in provenance_rows(study))]


def _multipliers(study: Study) -> list[str]:
    """A line a variant with a multiplier."""
    assert study.found is not None
    known = study.found["multipliers"]
    rows = [["", "mean", "interval", "at lowest loss", "interval", "P(better)"]]
    for variant in ordered(known):
        m = known[variant]
        ends = m["interval"]
        cells = [number(m["mean"]), span(ends["mean"]), number(m["at_end"]), span(ends["at_end"])]
        rows.append([study.called(variant), *cells, number(m["better"], 2)])
    return aligned(rows) if len(rows) > 1 else ["  none"]


def _frontiers(study: Study) -> list[str]:
    """A line a variant with a frontier law."""
    assert study.found is not None
    known = study.found["frontier"]
    rows = [["", "E", "A", "a", "interval", "points", "runs"]]
    for variant in ordered(known):
        m = known[variant]
        law = [number(m["E"], 4), number(m["A"], 4), number((m["corrected"] or m)["a"], 4), span(m["interval"]["a"])]
        rows.append([study.called(variant), *law, str(m["n"]), str(m["runs"])])
    return aligned(rows)


def _sensitivity(study: Study) -> list[str]:
    """The changes, numbered, and a line a variant with a column for each."""
    assert study.found is not None
    changes = study.found.get("sensitivity", {}).get("multipliers", [])
    if not changes:
        return ["  not made"]
    lines = ["  " + "; ".join(f"{place} {row['change']}" for place, row in enumerate(changes, 1))]
    rows = [["", *(str(place) for place in range(1, len(changes) + 1))]]
    for variant in ordered(name for name in changes[0] if name != "change"):
        rows.append([study.called(variant), *(number(row.get(variant)) for row in changes)])
    return lines + aligned(rows)


def _warnings(study: Study) -> list[str]:
    """By name, those that touch a verdict first; variants of which the same is said stand together."""
    assert study.found is not None
    lines = []
    for name, by_variant in grouped(study.found["warnings"]).items():
        lines.append(f"  {name.replace('_', ' ')}: {CAUTIONS[name]}")
        said: dict[str, list[str]] = {}
        for variant, texts in by_variant.items():
            for text in texts:
                said.setdefault(text, []).append(study.called(variant) if variant else "all")
        lines += [f"    {', '.join(variants)}: {text}" for text, variants in said.items()]
    return lines or ["  none"]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns stand below each other, the first to the left and numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def provenance_rows(study: Study) -> Rows:
    """What is known of the runs: command, machines, versions, code, counts."""
    known = {key: value for key, value in study.origin.items() if key not in ("missing", "lines")}
    known |= {} if study.origin else {"runs": study.runs["run_id"].nunique(), "evaluations": len(study.runs)}
    return [[key.replace("_", " "), _said(value)] for key, value in known.items() if value not in ("", None, [], {})]


def _said(value: Any) -> str:
    """A value of a record for people: lists and mappings without brackets, numbers of few digits."""
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_said(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shorter(key: str, said: str) -> str:
    """Commits and digests by their first characters."""
    if key.replace(" ", "_") not in HASHES:
        return said
    return ", ".join(" ".join([one.split(" ")[0][:HASH], *one.split(" ")[1:]]) for one in said.split(", "))
