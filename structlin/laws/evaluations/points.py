"""Which evaluations enter a law? Not those in warm-up, one schedule at a time, and never two experiments as one.

A constant-rate run counts at every evaluation after warm-up (the frontier design of arXiv 2410.02117), a decayed
run only at its end. Runs that differ in batch, data, task, optimizer and the like are different experiments: the
largest group is fitted and the rest is named, or all is refused or pooled on request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from structlin.errors import UserError, suggest
from structlin.laws.caution import Caution
from structlin.laws.choices import Choices
from structlin.laws.evaluations.names import plain
from structlin.laws.evaluations.quantities import words
from structlin.laws.minimum.objective import Array

# One law never holds two values of these, over all variants or within one.
# Own runs add every ``config.`` column that ``source`` carries.
SHARED = ("task", "data", "tokenizer", "model", "context", "batch_tokens", "optimizer", "dtype", "schedule")
WITHIN = ("learning_rate", "theta", "rounding")
# Evaluations of one variant above which runs are thinned: a law does not gain from the 50th point of a run.
MAX_ROWS = 3000
# Sums of evaluations that a filter may take away without being asked, as a share.
_MOST_LOST = 0.5
# Tokens within this of each other, in logarithms, are one D for ``best_of``.
_SAME_TOKENS = 0.02
# Epochs within this of those asked for, in logarithms, are the same.
_SAME_EPOCHS = 0.06
# A jump in C / (6 N D) between sorted rows that no architecture makes: 6 against 1, 2 or 3 FLOPs per parameter.
_CONVENTION_JUMP = 1.7


@dataclass(frozen=True)
class Points:
    """The evaluations of a fit."""

    frame: pd.DataFrame
    """One row per evaluation, columns as in ``source``."""
    cautions: tuple[Caution, ...]
    """What was left out or assumed."""
    choices: dict[str, object]
    """What was decided, for laws.json."""
    tuned: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The last evaluation of every run, of all learning rates and batches: for their own laws."""
    _parts: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def variants(self) -> list[str]:
        """Variants, in the order of their first row."""
        return list(dict.fromkeys(self.frame["variant"]))

    def of(self, variant: str) -> pd.DataFrame:
        """The rows of one variant, with a fresh index; the same frame at every call, to be left as it is."""
        if variant not in self._parts:
            self._parts[variant] = self.frame[self.frame["variant"] == variant].reset_index(drop=True)
        return self._parts[variant]

    def runs_of(self, variant: str) -> list[tuple[str, Array, Array]]:
        """(run, C, L) by growing compute for every run of a variant, by name."""
        frame = self.of(variant)
        run, flops, loss = frame["run"].to_numpy(), frame["C"].to_numpy(float), frame["L"].to_numpy(float)
        codes = np.unique(run.astype(str), return_inverse=True)[1]
        order = np.lexsort((flops, codes))
        parts = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
        return [(str(run[p[0]]), flops[p], loss[p]) for p in parts]


def choose(
    frame: pd.DataFrame, choices: Choices, assumed: dict[str, object], cautions: list[Caution], *, own: bool
) -> Points:
    """Evaluations -> points. Raises UserError when nothing is left or when mixing is refused."""
    notes = list(cautions)
    decided: dict[str, object] = dict(assumed)
    frame = _at_epochs(frame, choices, decided)
    frame = _without_warmup(frame, notes)
    frame = _one_kind(frame, choices, notes, decided)
    tuned = _ends(frame)
    frame = _off_plateau(frame, choices, notes, decided)
    if choices.best_of:
        frame = _best_of(frame, choices, notes, decided)
    frame = _one_experiment(frame, choices, notes, decided, own=own)
    _one_convention(frame, choices, notes)
    frame = _thin(frame, notes)
    decided["rows"] = len(frame)
    decided["runs"] = int(frame["run"].nunique())
    return Points(frame.reset_index(drop=True), tuple(notes), decided, tuned.reset_index(drop=True))


def _ends(frame: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every run: what laws of rates and batches see."""
    if "D" not in frame:
        return frame.iloc[:0]
    return frame.loc[np.sort(frame.groupby("run", sort=False)["D"].idxmax())]


def _at_epochs(frame: pd.DataFrame, choices: Choices, decided: dict[str, object]) -> pd.DataFrame:
    """Of every run the evaluation nearest to the epochs that are asked for. UserError where none is near."""
    if choices.epochs is None:
        return frame
    if "epochs" not in frame or frame["epochs"].isna().all():
        raise UserError(f"epochs={choices.epochs:g}: how often these runs read their data is not known")
    passes = frame["epochs"].astype(float)
    away = pd.Series(np.log(passes.where(passes > 0) / choices.epochs), index=frame.index).abs()
    nearest = away.groupby(words(frame["run"])).transform("min")
    kept: pd.DataFrame = frame[(away == nearest) & (away <= _SAME_EPOCHS)]
    if kept.empty:
        raise UserError(
            f"epochs={choices.epochs:g}: no evaluation is within {_SAME_EPOCHS:.0%} of it; these runs have "
            f"{passes.min():.3g} to {passes.max():.3g}"
        )
    decided["epochs"] = choices.epochs
    return kept


def _off_plateau(
    frame: pd.DataFrame, choices: Choices, notes: list[Caution], decided: dict[str, object]
) -> pd.DataFrame:
    """Each run from its first loss below that of a bigram model (``count_below``): before, it knows no more."""
    rule = choices.count_below
    if rule == "auto":
        characters = "tokenizer" in frame and (words(frame["tokenizer"]) == "char96").all()
        rule = "bigram" if characters and "bigram_loss" in frame and frame["bigram_loss"].notna().all() else "none"
    decided["count_below"] = rule
    if rule == "none":
        return frame
    level = _level(frame, rule, choices)
    decided["count_below_loss"] = sorted({float(f"{value:.6g}") for value in level.unique()})
    below = frame["L"] < level
    # From the first evaluation below on: a later one above it is noise of a run that has left the plateau.
    order = frame.index[np.lexsort((frame["C"].to_numpy(float), words(frame["run"]).to_numpy().astype(str)))]
    counts = below.loc[order].groupby(words(frame["run"]).loc[order]).cummax().reindex(frame.index)
    if not counts.any() and choices.count_below == "auto":
        # Nobody asked for it: say so, and show what there is.
        decided["count_below"] = "none"
        text = (
            f"no evaluation is below {level.iloc[0]:.4g} nats: these runs learned no more than bigrams; all are counted"
        )
        notes.append(Caution("plateau", text))
        return frame
    if not counts.any():
        raise UserError(
            f"no evaluation is below {level.iloc[0]:.4g} nats (count_below={choices.count_below}): these runs learned "
            "no more than bigrams; train longer, or count_below=none"
        )
    if not counts.all():
        text = f"{int((~counts).sum())} of {len(frame)} evaluations at or above {level.iloc[0]:.4g} nats ({rule})"
        notes.append(Caution("plateau", text + "; left out, count_below=none counts them"))
    return frame[counts]


def _level(frame: pd.DataFrame, rule: str, choices: Choices) -> pd.Series:
    """The loss of the plateau of every row; UserError where it is not known."""
    if choices.plateau is not None:
        return pd.Series(choices.plateau, index=frame.index)
    column = f"{rule}_loss"
    if column not in frame or frame[column].isna().any():
        raise UserError(
            f"count_below={rule}: the {rule} loss of the corpus is not known here; give it in nats, count_below=2.4"
        )
    return frame[column].astype(float)


def _best_of(frame: pd.DataFrame, choices: Choices, notes: list[Caution], decided: dict[str, object]) -> pd.DataFrame:
    """Of runs that differ in the named quantities the lowest loss of each variant, size, tokens and seed."""
    named = [_column_of(frame, name) for name in choices.best_of]
    decided["best_of"] = named
    size = "N" if "N" in frame else "C"
    keys = [frame["variant"], frame[size].map("{:.6g}".format)]
    if "D" in frame:
        keys.append((np.log(frame["D"]) / _SAME_TOKENS).round())
    if "seed" in frame:
        keys.append(words(frame["seed"]))
    best = frame.groupby(keys)["L"].idxmin()
    kept = frame.loc[sorted(best)].drop(columns=[name for name in named if name in (*SHARED, *WITHIN)])
    text = f"the lowest loss over {', '.join(named)} of each size and tokens: {len(kept)} of {len(frame)} evaluations"
    notes.append(Caution("best_of", text))
    return kept


def _column_of(frame: pd.DataFrame, name: str) -> str:
    """The column that ``lr``, ``batch`` or a name of the table stands for."""
    short = {
        "lr": "learning_rate",
        "learningrate": "learning_rate",
        "batch": "batch_tokens",
        "batchsize": "batch_tokens",
    }
    for one in (name, short.get(plain(name), name), plain(name)):
        if one in frame:
            return one
    known = [
        column for column in frame.columns if column not in ("L", "C", "N", "D", "run", "variant", "pair", "final")
    ]
    raise UserError(f"best_of={name} is no column here; {suggest(name, map(str, known))}")


def _without_warmup(frame: pd.DataFrame, notes: list[Caution]) -> pd.DataFrame:
    """Leave out evaluations before the rate is constant."""
    warm = frame["in_warmup"]
    if warm.any():
        notes.append(
            Caution("warmup_points", f"{int(warm.sum())} of {len(frame)} evaluations lie in warm-up; left out")
        )
        frame = frame[~warm]
    if frame.empty:
        raise UserError("every evaluation lies in warm-up; train longer, or give fewer warm-up steps")
    return frame


def _one_kind(frame: pd.DataFrame, choices: Choices, notes: list[Caution], decided: dict[str, object]) -> pd.DataFrame:
    """Constant-rate evaluations or the ends of decayed runs, never both."""
    kinds = frame["kind"].unique()
    if choices.points == "auto":
        chosen = next(kind for kind in ("constant", "decayed", "unknown") if kind in kinds)
    else:
        chosen = choices.points
    decided["points"] = chosen
    if chosen not in kinds and "unknown" not in kinds:
        raise UserError(f"points={chosen}: there are no such evaluations; valid here: {', '.join(sorted(kinds))}")
    if choices.mixed == "pool":
        if len(kinds) > 1:
            notes.append(Caution("pooled_runs", f"schedules {', '.join(sorted(kinds))} are pooled, as asked"))
        return frame[frame["final"]]
    others = frame[(frame["kind"] != chosen) & (frame["kind"] != "unknown")]
    if len(others):
        runs = others["run"].nunique()
        way = "decayed" if chosen == "constant" else "constant"
        notes.append(
            Caution("mixed_runs", f"{runs} {way} runs beside the {chosen} ones are left out; points={way} fits them")
        )
    return frame[frame["final"] & frame["kind"].isin((chosen, "unknown"))]


def _one_experiment(
    frame: pd.DataFrame, choices: Choices, notes: list[Caution], decided: dict[str, object], *, own: bool
) -> pd.DataFrame:
    """Keep one value of every SHARED column, and of every WITHIN column in a variant."""
    # One row a run tells: a run does not change its configuration.
    single = frame.drop_duplicates("run")
    asked = [name for name in frame if name in SHARED or str(name).startswith("config.")]
    shared = [str(name) for name in asked if words(single[name]).nunique() > 1]
    rule = choices.mixed if choices.mixed != "auto" else ("largest" if own else "refuse")
    decided["mixed"] = rule
    if shared:
        keys = [words(frame[name]) for name in shared]
        counts = frame.groupby(keys)["run"].agg(["nunique", "size"]).sort_values("size", ascending=False)
        seen = "; ".join(f"{_named(shared, key)}: {int(row['nunique'])} runs" for key, row in counts.head(4).iterrows())
        if rule == "refuse":
            raise UserError(
                f"runs differ in {', '.join(shared)} ({seen}); pick with where=..., or mixed=largest or pool"
                + _best_way(shared)
            )
        if rule == "pool":
            notes.append(Caution("pooled_runs", f"runs differ in {', '.join(shared)} ({seen}); pooled, as asked"))
        else:
            best = counts.index[0] if isinstance(counts.index[0], tuple) else (counts.index[0],)
            chosen = frame
            for name, value in zip(shared, best, strict=True):
                chosen = chosen[words(chosen[name]) == value]
            if choices.mixed == "auto":
                _refuse_lost(frame, chosen, _named(shared, best), shared)
            frame = chosen
            text = f"runs differ in {', '.join(shared)} ({seen}); only {_named(shared, best)} is fitted; "
            text += "pick with where=..."
            notes.append(Caution("mixed_runs", text))
    if rule == "pool":
        return frame
    return _one_rate(frame, notes, asked=choices.mixed == "largest", own=own)


def _named(names: list[str], values: object) -> str:
    """``batch_tokens=1024, optimizer=adamw``."""
    parts = values if isinstance(values, tuple) else (values,)
    return ", ".join(f"{name}={value}" for name, value in zip(names, parts, strict=True))


def _best_way(names: list[str]) -> str:
    """The way out of tuned quantities."""
    tuned = [name for name in names if name in ("learning_rate", "batch_tokens")]
    return f"; best_of=[{','.join(tuned)}] takes the best of each size" if tuned else ""


def _one_rate(frame: pd.DataFrame, notes: list[Caution], *, asked: bool, own: bool) -> pd.DataFrame:
    """Within a variant, the learning rate with most evaluations; refused where that takes sizes or most rows away."""
    for name in WITHIN:
        if name not in frame:
            continue
        for variant, part in frame.groupby("variant"):
            values = words(part[name])
            counts = values.value_counts()
            if len(counts) > 1:
                chosen = part[values == counts.index[0]]
                if not asked:
                    _refuse_lost(part, chosen, f"{name}={counts.index[0]}", [name], rows=not own)
                seen = ", ".join(str(value) for value in counts.index[:5])
                text = f"{len(counts)} values of {name} ({seen}); only {counts.index[0]} is fitted; pick with where=..."
                notes.append(Caution("mixed_runs", text, str(variant)))
                frame = frame[(frame["variant"] != variant) | (words(frame[name]) == counts.index[0])]
    return frame


def _refuse_lost(frame: pd.DataFrame, kept: pd.DataFrame, what: str, names: list[str], *, rows: bool = False) -> None:
    """Refuse a filter that removes model sizes, or with ``rows`` most of the rows."""
    for variant, part in frame.groupby("variant"):
        here = kept[kept["variant"] == variant]
        sizes = [one["N"].map("{:.6g}".format).nunique() if "N" in one else 0 for one in (part, here)]
        lost = sizes[0] - sizes[1]
        if lost or (rows and len(here) < (1.0 - _MOST_LOST) * len(part)):
            text = f"keeping only {what} of {variant} would take {lost} of {sizes[0]} sizes and "
            text += f"{len(part) - len(here)} of {len(part)} rows away"
            raise UserError(
                f"runs differ in {', '.join(names)}: {text}; pick with where=..., mixed=pool fits all, mixed=largest "
                f"takes it as it is{_best_way(names)}"
            )


def _one_convention(frame: pd.DataFrame, choices: Choices, notes: list[Caution]) -> None:
    """Refuse FLOPs that follow two counting conventions: C / (6 N D) falls into two heaps."""
    if not {"N", "D"} <= set(frame.columns) or len(frame) < 4:
        return
    # Conventions differ by a constant factor. Sorted, a mixture of two shows as one large step between neighbours.
    ratio = np.sort((frame["C"] / (6.0 * frame["N"] * frame["D"])).to_numpy())
    jumps = ratio[1:] / ratio[:-1]
    cut = int(np.argmax(jumps))
    # One row apart from all others is an outlier, not a convention.
    if jumps[cut] < _CONVENTION_JUMP or min(cut + 1, len(ratio) - cut - 1) < 2:
        return
    low, high = np.median(ratio[: cut + 1]), np.median(ratio[cut + 1 :])
    text = f"FLOPs are about {low:.2g} x 6ND in {cut + 1} rows and {high:.2g} x 6ND in {len(ratio) - cut - 1}"
    if choices.mixed != "pool":
        raise UserError(f"{text}: two counting conventions; bring them to one, or mixed=pool to fit them together")
    notes.append(Caution("mixed_convention", text + "; pooled, as asked"))


def _thin(frame: pd.DataFrame, notes: list[Caution]) -> pd.DataFrame:
    """Where a variant has more than MAX_ROWS evaluations, keep as many per run as fit, evenly in order of compute."""
    sizes = frame.groupby("variant")["run"].agg(["size", "nunique"])
    keep = np.ones(len(frame), bool)
    for variant, (rows, runs) in sizes.iterrows():
        if rows <= MAX_ROWS:
            continue
        each = max(3, int(MAX_ROWS // runs))
        places = np.flatnonzero(frame["variant"] == variant)
        part = frame[["run", "C"]].iloc[places].assign(place=places).sort_values(["run", "C"])
        rank = part.groupby("run").cumcount()
        total = part.groupby("run")["run"].transform("size")
        # The last evaluation of every run stays; the others at even ranks.
        slot = np.floor((rank + 1) * each / total)
        keep[part["place"][slot <= np.floor(rank * each / total)]] = False
        notes.append(
            Caution("thinned", f"{rows} evaluations of {runs} runs thinned to {int(keep[places].sum())}", str(variant))
        )
    return frame if keep.all() else frame[keep]
