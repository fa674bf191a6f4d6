"""Is a wider model with narrow attention and low-rank feed-forward networks better or faster than a dense one?

Source: arXiv 2406.16450, its table of wide and structured models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import COLOURS

from .gaps import gap, mean_of, of_gaps, published, published_gap, with_kinds
from .lines import ends

STUDY = "wide_structured"
LAWS = False
SPEEDS = {"tokens_per_second": "training", "decode_1": "decoding, 1 text", "decode_16": "decoding, 16 texts"}
PUBLISHED_SIZE = "m"
PUBLISHED_KINDS = {"grouped": "dense, grouped keys", "wide": "wide"}
GREY = "#777777"


def draw(runs: pd.DataFrame) -> Drawing:
    """Gaps of loss to dense at equal training FLOPs, and speeds over those of dense, beside the published ones."""
    last = with_models(ends(runs))
    names: list[str] = list(dict.fromkeys(last.sort_values("order")["model_name"]))[1:]
    base = last[last["order"] == 0]
    return Drawing(
        name="wide-structured",
        title="Wide and structured models against dense",
        caption=(
            f"{last['run_id'].nunique()} GPT-2s on data={last['data'].iloc[0]}, {last['training_flops'].max():.2g} "
            f"training FLOPs each, {last['seed'].nunique()} seeds. {_sizes(last)}. Above: loss at the end above that "
            "of dense, mean difference by seed with 90% intervals. Below: tokens a second over those of dense on "
            f"{_machines(last)}; decoding with keys and values kept. Grey: published (arXiv 2406.16450), where dense "
            "has 335M parameters and the wide model 219M: ln of the perplexities' ratio, and throughput on a GPU."
        ),
        panels=(_loss_panel(last, base, names), _speed_panel(last, base, names)),
        columns=1,
        wide=True,
    )


def with_models(last: pd.DataFrame) -> pd.DataFrame:
    """The rows with the name of their model, its ``order``, and decoded tokens a second."""
    table = with_kinds(last)
    wide = _given(table, "config.model.attention_width")
    grouped = _given(table, "config.model.kv_heads") & ~wide
    base = table[(table["family"] == "dense") & ~grouped]["params_total"].iloc[0]
    share = table["params_total"] / base
    dense = table["family"] == "dense"
    kinds = (wide, grouped, dense)
    words = [f"wide, {one:.2f} of the parameters" for one in share]
    names = np.select(kinds, (words, "dense, grouped keys", "dense"), "low rank")
    order = np.select(kinds, (3 + share, 1, 0), 2)
    speeds = {f"decode_{rows}": 1e3 / table[f"decode_ms_{rows}"].astype(float) for rows in (1, 16)}
    return table.assign(model_name=names, order=order, **speeds)


def _given(table: pd.DataFrame, column: str) -> pd.Series:
    """Whether a key of the config is set; tables without the column have none that is."""
    return table[column].notna() if column in table else pd.Series(False, index=table.index)


def _loss_panel(last: pd.DataFrame, base: pd.DataFrame, names: list[str]) -> Panel:
    found = [(index, gap(last[last["model_name"] == name], base)) for index, name in enumerate(names)]
    kept = [(index, one) for index, one in found if one is not None]
    ours = of_gaps("here", "here", [at for at, _ in kept], [one for _, one in kept], (COLOURS[2], "o"))
    pairs = [(at + 0.25, published_gap(PUBLISHED_SIZE, kind)) for at, kind in _published_places(names)]
    grey = _grey([(at, value) for at, value in pairs if value is not None])
    return Panel("loss", "", "nats above dense", (ours, *grey), x_log=False, y_log=False, level=0.0, names=tuple(names))


def _speed_panel(last: pd.DataFrame, base: pd.DataFrame, names: list[str]) -> Panel:
    series = []
    for place, (column, words) in enumerate(SPEEDS.items()):
        values = [(i, _ratio(last[last["model_name"] == name], base, column)) for i, name in enumerate(names)]
        kept = [(i + 0.18 * (place - 1), value) for i, value in values if math.isfinite(value)]
        if kept:
            x, y = np.array(kept).T
            series.append(Series(words, words, x, y, "points", COLOURS[(2, 1, 3)[place]], ("o", "s", "D")[place]))
    table = published()
    table = table[(table["size"] == PUBLISHED_SIZE) & table["quantity"].str.startswith("decoded")]
    speed = dict(zip(table["structure"], table["value"], strict=True))
    series += _grey([(at + 0.36, speed[kind] / speed["dense"]) for at, kind in _published_places(names)])
    return Panel("speed", "", "tokens a second over dense", tuple(series), x_log=False, y_log=False, level=1.0,
                 names=tuple(names))  # fmt: skip


def _published_places(names: list[str]) -> list[tuple[int, str]]:
    """Where the published models stand: with the grouped one, and with the wide one of fewest parameters."""
    found = []
    for kind, start in PUBLISHED_KINDS.items():
        found += [(index, kind) for index, name in enumerate(names) if name.startswith(start)][:1]
    return found


def _grey(pairs: list[tuple[float, float]]) -> list[Series]:
    if not pairs:
        return []
    x, y = np.array(pairs).T
    return [Series("published, m", "published", x, y, "points", GREY, "v")]


def _ratio(part: pd.DataFrame, base: pd.DataFrame, column: str) -> float:
    if column not in part or part[column].isna().all() or base[column].isna().all():
        return math.nan
    return mean_of(part[column].to_numpy(float)).mean / mean_of(base[column].to_numpy(float)).mean


def _sizes(last: pd.DataFrame) -> str:
    rows = last.sort_values("order").drop_duplicates("model_name")
    named = zip(rows["model_name"], rows["d_model"], rows["params_total"].astype(float), strict=True)
    return "; ".join(f"{name}: width {width}, {size / 1e3:.1f}k" for name, width, size in named)


def _machines(last: pd.DataFrame) -> str:
    names: Iterable[object] = last["device_name"].dropna().unique() if "device_name" in last else []
    return ", ".join(map(str, names)) or "the machine that trained them"
