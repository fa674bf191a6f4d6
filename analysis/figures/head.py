"""Where does structure pay on text: in the body, in the head or in both? With and without the FLOPs of the head."""

from __future__ import annotations

import pandas as pd

from structlin.data import vocab_size
from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import readable
from structlin.drawing.style import colour_of, marker_of, ordered

from .lines import frontier

STUDY = "head"
LAWS = False
COUNTS = {"paper_flops": "forward MACs x tokens", "body_flops": "forward MACs x tokens, without the head"}


def draw(runs: pd.DataFrame) -> Drawing:
    """A panel a tokenizer and a way to count: the lowest loss over compute."""
    last = with_body(runs)
    return Drawing(
        name="head",
        title="Structure in the body, the head, or both",
        caption=(
            f"The lowest loss of {last['run_id'].nunique()} runs of GPT-2 on data={last['data'].iloc[0]} up "
            "to a compute, mean and range over seeds; that of the head is counted on the left, and not on the right."
        ),
        panels=tuple(panels_of(last)),
        columns=2,
        shared_legend=True,
    )


def with_body(last: pd.DataFrame) -> pd.DataFrame:
    """Evaluations after warm-up of runs that did not diverge, with their compute without that of the head."""
    last = last[(last["status"] != "diverged") & ~last["in_warmup"].astype(bool)]
    share = 1.0 - last["macs_head"].astype(float) / last["macs_per_token"].astype(float)
    return last.assign(body_flops=last["paper_flops"].astype(float) * share)


def panels_of(last: pd.DataFrame) -> list[Panel]:
    """A panel a tokenizer and a way to count."""
    variants = ordered(last["variant"].unique())
    panels = []
    for tokenizer, part in last.groupby("tokenizer", observed=True):
        words = "characters" if tokenizer == "char96" else f"byte pairs, {vocab_size(str(tokenizer)):,} of them"
        for column, label in COUNTS.items():
            series = [
                frontier(part[part["variant"] == v], column, "val_loss", readable(v, variants), v,
                      (colour_of(variants, v), marker_of(variants, v)))
                for v in variants
            ]  # fmt: skip
            drawn = tuple(one for one in series if one is not None)
            panels.append(Panel(words, label, "validation loss, nats per token", drawn))
    return panels
