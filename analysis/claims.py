"""Which claims of the papers hold in the kept runs? Each comparison with its compute, its runs and its interval.

    python -m analysis.claims                               of the runs kept in the repository
    python -m analysis.claims runs=runs/                    of a store of one's own, as one study (study=fig4)
    python -m analysis.claims out=docs/claims.md            as a page, with how the kept forecasts did

A claim is about multipliers at the lowest loss that both structures reached, C_baseline / C_x. It holds where the whole
interval is on the side that the claim names, does not where it is on the other, and is undecided in between. That two
are alike holds where the interval lies within a factor 1.5 of 1, and does not where it excludes 1.

Keys: study (all of those below, or a comma list), out, and those of fit_laws.py that choose runs and fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from structlin.drawing.names import readable
from structlin.errors import UserError, asks_help, door, suggest
from structlin.host.files import read_json, write_atomically
from structlin.laws import forecasts
from structlin.laws.approaches.laws import Laws
from structlin.structure.taxonomy import Taxonomy

from . import kept
from .figures.fig4 import NEAR
from .figures.thetas import places_of
from .make import Maker, divided, maker_of

ALIKE = 1.5
"""Structures whose computes differ by less than this factor count as alike."""
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
RECORD = kept.FOLDER / "forecasts" / forecasts.RECORD
"""How the kept forecasts did."""
OWN_KEYS = {"study": "", "out": ""}
OWN = "own"
"""What runs of one's own are called where nobody says of which study they are."""
NOTHING = (float("nan"),) * 4
"""Compute, multiplier and the ends of its interval where there are none."""

Pairs = Callable[[pd.DataFrame], Iterator[tuple[str, str]]]
"""Which variants of a table are compared, each with its baseline."""


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, as comparisons."""

    text: str
    source: str
    studies: tuple[str, ...]
    """Those whose kept runs bear on it."""
    side: str
    """less (needs less compute than the baseline), more, or alike."""
    pairs: Pairs


@dataclass(frozen=True)
class Finding:
    """What the runs of one study say of one comparison of a claim."""

    claim: Claim
    study: str
    variant: str
    baseline: str
    num_runs: int
    """Of both, as fitted."""
    flops: float
    """The baseline's compute at the lowest loss that both reached."""
    value: float
    """C_baseline / C_x there."""
    low: float
    high: float
    """Its interval; NaN where the laws withhold it."""
    reason: str = ""
    """Why there is no multiplier."""

    @property
    def verdict(self) -> str:
        """holds, does not hold or undecided."""
        return judge(self.claim.side, self.low, self.high)


def judge(side: str, low: float, high: float) -> str:
    """Whether an interval of C_baseline / C_x lies on a side of 1; undecided where there is none."""
    if not low <= high:
        return UNDECIDED
    if side == "alike":
        if not low <= 1 <= high:
            return FAILS
        return HOLDS if low * ALIKE >= 1 and high <= ALIKE else UNDECIDED
    if side == "more":
        low, high = 1 / high if high else float("inf"), 1 / low if low else float("inf")
    return HOLDS if low > 1 else FAILS if high < 1 else UNDECIDED


def overall(verdicts: Sequence[str]) -> str:
    """Of a claim: as all comparisons say, else how many say what."""
    if len(set(verdicts)) == 1:
        return verdicts[0]
    counts = (f"{verdicts.count(one)} {one}" for one in (HOLDS, FAILS, UNDECIDED) if one in verdicts)
    return f"of {len(verdicts)}: {', '.join(counts)}"


# --- which variants ---------------------------------------------------------------------------------------------------


def _against_dense(chosen: Callable[[Taxonomy], bool]) -> Pairs:
    """Every structure in a place of (omega, psi, nu) against dense; not mixtures, and not BLAST, which is no theta."""

    def pairs(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
        places: Mapping[str, Taxonomy] = places_of(
            runs[(runs["moe"].astype(str) == "none") & (runs["structure"].astype(str) != "blast")]
        )
        dense = [variant for variant in places if re.fullmatch(r"dense(\+[\w-]+)?", variant)]
        for variant, place in sorted(places.items()):
            if dense and variant != dense[0] and chosen(place):
                yield variant, dense[0]

    return pairs


def _named(*patterns: tuple[str, str]) -> Pairs:
    """Variants by patterns of their names, without what caps and rounding add: (variant, baseline)."""

    def pairs(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
        names = sorted(map(str, runs["variant"].unique()))
        for pattern, other in patterns:
            for variant in (name for name in names if re.fullmatch(rf"{pattern}(\+[\w-]+)*", name)):
                wanted = re.match(pattern, variant)
                assert wanted is not None
                found = [name for name in names if re.fullmatch(rf"{wanted.expand(other)}(\+[\w-]+)*", name)]
                yield from ((variant, one) for one in found[:1])

    return pairs


TASKS = ("fig4", "pixels", "regression")
CLAIMS = (
    Claim(
        "Sharing parameters (omega > 0) costs compute", "2410.02117, figures 4 and 5", TASKS, "more",
        _against_dense(lambda place: place.omega > NEAR),
    ),
    Claim(
        "So does less than full rank (psi < 1) without sharing", "2410.02117, figures 4 and 5", TASKS, "more",
        _against_dense(lambda place: place.omega < NEAR and place.psi < 1 - NEAR),
    ),
    Claim(
        "Without sharing and of full rank nu makes no difference", "2410.02117, figures 4 and 5", TASKS, "alike",
        _against_dense(lambda place: place.omega < NEAR and place.psi > 1 - NEAR),
    ),
    Claim("BTT needs less compute than dense", "2406.06248", TASKS, "less", _named(("btt", "dense"))),
    Claim(
        "A mixture needs less compute than dense", "2410.02117, figures 6 and 7", ("fig6", "fig7"), "less",
        _named((r"moe-(?:btt|ffn)\d+(?:-random)?", "dense")),
    ),
    Claim(
        "BTT-MoE needs less compute than the standard mixture", "2410.02117, figures 6 and 7", ("fig6", "fig7"), "less",
        _named((r"moe-btt(\d+)", r"moe-ffn\1(?:-random)?")),
    ),
    Claim(
        "BTT-MoE needs less compute than dense and low-rank experts in its places", "2410.02117, figure 7", ("fig7",),
        "less", _named((r"moe-btt(\d+)", r"moe-dense\1"), (r"moe-btt(\d+)", r"moe-low_rank\1")),
    ),
    Claim(
        "Routing attention too pays", "2410.02117, figure 7", ("fig7",), "less",
        _named((r"moe-btt(\d+)", r"moe-btt\1-ffn"), (r"moe-ffn(\d+)-all-random", r"moe-ffn\1-random")),
    ),
    Claim(
        "Layouts that know the heads need less compute than the naive BTT", "2410.02117, figure 10",
        ("fig10", "fig10_learned"), "less",
        _named((r"btt@\w+", "btt")),
    ),
)  # fmt: skip


# --- what the runs say ------------------------------------------------------------------------------------------------


def findings(maker: Maker, studies: Sequence[str] = ()) -> list[Finding]:
    """All comparisons whose runs are there, claim by claim; of ``studies``, where some are named.

    Runs of one's own are compared once a claim, under the name of the one study that they are said to be, or ``own``.
    """
    found = []
    for claim in CLAIMS:
        wanted = [one for one in claim.studies if not studies or one in studies]
        if maker.own is not None:
            wanted = [studies[0] if studies else OWN] if wanted else []
        for study in wanted:
            runs = maker.own if maker.own is not None else getattr(maker.kept(study), "runs", None)
            if runs is not None:
                found += list(_of_study(claim, study, runs, maker))
    return found


def _of_study(claim: Claim, study: str, runs: pd.DataFrame, maker: Maker) -> Iterator[Finding]:
    pairs = list(claim.pairs(runs))
    if not pairs:
        return
    base = next((one for _, one in pairs if one.split("+")[0] == "dense"), pairs[0][1])
    laws = maker.laws(study, runs, base)
    for variant, baseline in pairs:
        frame = laws.points.frame
        num_runs = int(frame[frame["variant"].isin([variant, baseline])]["run"].nunique())
        yield replace(Finding(claim, study, variant, baseline, num_runs, *NOTHING), **_at_end(laws, variant, baseline))


def _at_end(laws: Laws, variant: str, baseline: str) -> dict[str, Any]:
    """Compute of the baseline, the multiplier and its interval at the lowest shared loss, or why there is none."""
    try:
        found = laws.compare(variant, baseline)
    except UserError as error:
        return {"reason": str(error)}
    ends = found["interval"]["at_end"] or {}
    low, high = (float("nan") if ends.get(key) is None else float(ends[key]) for key in ("low", "high"))
    return {"flops": float(found["flops_range"][-1]), "value": float(found["at_end"]), "low": low, "high": high}


def page(found: Sequence[Finding], record: Mapping[str, Any] | None = None, confidence: float = 0.9) -> str:
    """Markdown: a claim a heading, a comparison a row; then the record of forecasts."""
    of_kept = any(one.study != OWN for one in found) and record is not None
    parts = [
        f"# Claims of the papers, and what the {'kept ' if of_kept else ''}runs say", (__doc__ or "").split("\n\n")[2]
    ]  # fmt: skip
    said = (
        f"{100 * confidence:.3g}% intervals by resampled runs; compute is the baseline's at the lowest loss that both "
        "reached"
    )
    parts.append(
        f"Made by `python -m analysis.claims out=docs/claims.md` from the tables in analysis/data ({said}). Models, "
        "widths and corpora are those of [the small studies](tasks.md#studies): what is seen there decides nothing "
        "about larger ones."
        if of_kept
        else f"{said[0].upper()}{said[1:]}."
    )
    for claim in dict.fromkeys(one.claim for one in found):
        rows = [one for one in found if one.claim is claim]
        parts.append(f"## {claim.text}\n\narXiv {claim.source}. **{_said(rows)}**")
        lines = [
            f"| study | structure | against | runs | FLOPs | C_baseline / C, {100 * confidence:.3g}% | |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(one, [row.variant for row in rows] + [row.baseline for row in rows]) for one in rows]
        parts.append("\n".join(lines))
    if record:
        parts.append(_forecasts(record))
    return "\n\n".join(parts) + "\n"


def _forecasts(record: Mapping[str, Any]) -> str:
    """How forecasts that were kept before the runs did: ``record`` as laws/forecasts.py writes it."""
    lines = [
        "## Forecasts\n\nScored by the runs of a study (`python fit_laws.py .. score=FORECAST`; 90% intervals; all "
        "variants at all computes that were foretold and reached). NAME-kept and text were written before those runs "
        "were trained, from the runs that were there then; NAME-lower-decade are of the study's own rows below a tenth "
        "of its compute, GPT-2's written before the rest was trained, the others after it.\n",
        "| forecast | losses in their intervals | median error of log loss | multipliers in theirs | best foretold |",
        "|" + 5 * "---|",
    ]
    for name in dict.fromkeys(one["forecast"] for one in record["scores"]):
        scores = [one for one in record["scores"] if one["forecast"] == name]
        gains = [one["multiplier"] for one in scores if one.get("multiplier")]
        named = [one for one in record.get("winners", []) if one["forecast"] == name]
        error = median(abs(one["error"]) for one in scores)
        right = sum(one["predicted"] == one["measured"] for one in named)
        lines.append(
            f"| {name} | {_inside(scores)} | {100 * error:.1f}% | {_inside(gains)} | {right} of {len(named)} |"
        )
    return "\n".join(lines)


def _inside(scores: Sequence[Mapping[str, Any]]) -> str:
    judged = [one["inside"] for one in scores if one["inside"] is not None]
    return f"{sum(judged)} of {len(judged)}"


def _said(rows: Sequence[Finding]) -> str:
    """The verdict of every study."""
    studies = dict.fromkeys(one.study for one in rows)
    return "; ".join(f"{study}: {overall([one.verdict for one in rows if one.study == study])}" for study in studies)


def _row(one: Finding, variants: Sequence[str]) -> str:
    value = one.reason.replace("|", "\\|") or f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
    flops = "-" if one.reason else f"{one.flops:.1e}".replace("e+", "e")
    cells = (
        one.study, readable(one.variant, variants), readable(one.baseline, variants), str(one.num_runs), flops, value,
        one.verdict,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> int:
    """Print the page, or write it."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    own, others = divided(arguments, OWN_KEYS)
    studies = own["study"].split(",") if own["study"] else []
    known = sorted({study for claim in CLAIMS for study in claim.studies})
    for study in studies:
        if study not in known:
            raise UserError(f"study={study} bears on no claim; {suggest(study, known)}")
    maker = maker_of(others)
    if maker.own is not None and len(studies) > 1:
        raise UserError(f"study={own['study']}: runs of one's own are those of one study; name one, or none")
    found = findings(maker, studies)
    if not found:
        raise UserError(
            "these runs bear on no claim: it compares structures with dense, and mixtures and layouts of heads"
        )
    record = None if maker.own is not None else read_json(RECORD) if RECORD.exists() else {}
    text = page(found, record, maker.choices.confidence)
    if own["out"]:
        write_atomically(Path(own["out"]), text.encode())
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    door(main)
