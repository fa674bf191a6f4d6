"""Is a mixture of structured experts better than the standard one? Frontiers and multipliers of dense and mixtures.

Source: arXiv 2410.02117, figure 6.
"""

from __future__ import annotations

import pandas as pd

from analysis.curves import frontier_panel, multiplier_panel, without_law
from analysis.drawing import Drawing, Panel
from structlin.laws.fit import Laws

STUDY = "fig6"


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Frontiers of all variants, and multipliers against dense for each number of experts."""
    variants = laws.points.variants
    names = {variant: readable(variant) for variant in variants}
    panels: list[Panel] = [frontier_panel(laws, variants, "frontiers", names=names)]
    for experts in numbers_of_experts(variants):
        chosen = [v for v in variants if experts_of(v) in (0, experts) and v != laws.baseline]
        panels.append(multiplier_panel(laws, chosen, f"{experts} experts", names))
    return Drawing(
        name="fig6",
        title="Mixtures of experts: BTT-MoE and standard MoE",
        caption=(
            f"Left: frontiers of {len(variants)} variants ({laws.points.choices['runs']} runs). Right: compute that "
            f"dense layers need over what a variant needs for the same loss, with "
            f"{100 * laws.choices.confidence:.0f}% bands over resampled runs."
        ),
        panels=tuple(panels),
        missing=without_law(laws, variants),
    )


def experts_of(variant: str) -> int:
    """Experts of a variant, 0 without a mixture: moe-btt8 -> 8, btt+moe-ffn16-all -> 16."""
    for word in variant.split("+"):
        if word.startswith("moe-"):
            return int("".join(c for c in word.removeprefix("moe-").split("-")[0] if c.isdigit()))
    return 0


def numbers_of_experts(variants: list[str]) -> list[int]:
    """The numbers of experts that occur."""
    return sorted({experts_of(variant) for variant in variants} - {0})


def readable(variant: str) -> str:
    """What a reader calls a variant: moe-btt8 -> BTT-MoE (8)."""
    kinds = {"btt": "BTT-MoE", "ffn": "standard MoE", "dense": "dense-MoE", "low_rank": "low-rank-MoE"}
    words = []
    for word in variant.split("+"):
        if word.startswith("moe-"):
            kind, *options = word.removeprefix("moe-").split("-")
            name = kind.rstrip("0123456789")
            word = f"{kinds.get(name, name)} ({', '.join([kind[len(name) :], *options])})"
        words.append(word)
    return ", ".join(words)
