"""What did the user choose? Every key of ``python fit_laws.py key=value ...``, typed, checked and recorded.

The keys are the fields of ``Choices``; the sentence under a field is its help text. Values are YAML flow syntax
(``columns='{params: N, tokens: D}'``), except ``where``, which is a condition of its own and is taken as written.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from structlin.errors import UserError, suggest
from structlin.laws.minimum.objective import Objective

ALLOWED = {
    "source": ("runs", "table", "wandb", "wandb_offline"),
    "convention": ("training", "paper", "logged"),
    "points": ("auto", "constant", "decayed"),
    "mixed": ("auto", "largest", "refuse", "pool"),
    "duplicates": ("refuse", "keep", "drop"),
    "frontier": ("hull", "window"),
    "form": ("auto", "additive", "powered", "coupled"),
    "procedure": ("uniform", "published"),
    "metric": ("val_loss", "val_error", "train_loss", "train_error", "clean_loss", "clean_error"),
}
ALL = "*"
"""The key of ``units`` that stands for every column: units=text."""
# Lists of positive numbers: key, what one of them is, unit.
_LISTS = (("budgets", "budget", "FLOPs"), ("predict", "compute", "FLOPs"), ("predict_loss", "loss", "nats"))
COUNT_BELOW = ("auto", "bigram", "unigram", "none")
# Procedure -> tolerance of the hull: ours, and that of the released notebooks of arXiv 2410.02117.
TOLERANCES = {"uniform": 0.002, "published": 0.02}


@dataclass(frozen=True)
class Choices:
    """All choices of one fit."""

    source: str = "runs"
    """Where the evaluations come from: runs (this project's store), table, wandb or wandb_offline."""
    runs: str = "runs/"
    """The folder of this project's runs (source=runs)."""
    out: str = "laws/"
    """The folder for laws.json, figures and report.html."""
    table: str = ""
    """A csv, tsv, parquet, json or json-lines file, also .gz (source=table); W&B's wide export of a chart too."""
    columns: dict[str, str] = field(default_factory=dict)
    """Names in the table, as '{params: N, tokens: D, loss: L, flops: C, structure: arch, run: name, seed: seed}'."""
    units: dict[str, str] = field(default_factory=dict)
    """Units of columns, as '{params: M, tokens: B, loss: bits}'; a number is a factor, ppl a perplexity; units=text
    reads numbers as people write them (12.5M, 1,666,667)."""
    join: str = ""
    """A small table of runs, whose columns are added by run name (a chart of W&B has no sizes)."""
    names: str = ""
    """Columns to read off the run names, as '{structure}-{params}-s{seed}'."""
    project: str = ""
    """entity/name of a W&B project (source=wandb)."""
    dir: str = "wandb/"
    """The folder of offline W&B runs (source=wandb_offline)."""
    cache: str = ".wandb_cache/"
    """Where histories fetched from W&B are kept; remove a file there to fetch it again."""
    metric: str = "val_loss"
    """What is fitted: val_loss, or of images val_error, or those of the training images augmented as in training
    (train_loss, train_error) or as they are (clean_loss, clean_error)."""
    epochs: float | None = None
    """Only evaluations at this many passes over the data, one a run: frontiers over the width at equal epochs."""
    where: str = ""
    """A condition on the rows, as 'tokens > 1e8 and structure == "btt"'."""
    best_of: tuple[str, ...] = ()
    """Tuned quantities, as [lr,batch]: of runs of one variant, size and tokens the lowest loss counts."""
    count_below: str = "auto"
    """A run counts from where its loss is below that of a bigram or unigram model of its corpus, or below a number of
    nats; none: from the end of warm-up (auto: bigram for char96, none else)."""
    baseline: str = "dense"
    """The variant that compute multipliers compare with."""
    convention: str = "training"
    """What a FLOP is for own runs: training (6 x forward MACs x tokens), paper (forward MACs x tokens, as the papers
    define it), or logged (as the released code counted: A contracted first, and 5 per element of a layer norm)."""
    points: str = "auto"
    """Which evaluations count: constant (after warm-up), decayed (the end of a decayed run), auto (constant if any)."""
    mixed: str = "auto"
    """Runs that differ in batch, data, task, optimizer or schedule: fit the largest group, refuse, or pool them
    (auto: largest for own runs, refuse for foreign ones)."""
    duplicates: str = "refuse"
    """Two evaluations of one run at one number of tokens: refuse, keep or drop the second."""
    frontier: str = "hull"
    """The frontier: the lower convex hull, or the lowest loss in a proportional window of compute."""
    tolerance: float | None = None
    """How far above the hull, in log loss, a point still belongs to the frontier (0.002, until there are 8 points; with
    procedure=published 0.02)."""
    window: float = 0.25
    """Half-width in log10 compute of the window (frontier=window)."""
    procedure: str = "uniform"
    """The mean of a multiplier: uniform (in log C of the baseline, over the losses both reached) or published (over the
    frontier observations of a variant)."""
    offset: str = "fit"
    """The irreducible loss of the frontier: fit, zero, or a number in nats."""
    objective: str = "log_huber"
    """The parametric objective: log_huber, log_squares, huber or squares (sums over rows)."""
    delta: float = 1e-3
    """Where the Huber objective turns from a square into a line."""
    form: str = "auto"
    """The parametric form: additive (E + A/N^a + B/D^b), powered (E + (A/N^a + B/D^b)^g), coupled (E + A/N^a +
    B N^k/D^b), or auto, whichever predicts the largest computes best from the others."""
    E: str = "fit"
    """The irreducible loss of the parametric law: fit, or a number in nats."""
    budgets: tuple[float, ...] = ()
    """Compute budgets for optimal width and tokens; found from the data when not given."""
    bootstrap: int = 400
    """Resamplings of the runs."""
    confidence: float = 0.9
    """Probability of every interval."""
    seed: int = 0
    """Seed of the resampling."""
    predict: tuple[float, ...] = ()
    """Computes, FLOPs, to predict loss, model size, tokens and multiplier at, as 1e22 or 1e21,1e22."""
    predict_loss: tuple[float, ...] = ()
    """Losses, nats, to predict compute, model size and tokens for."""
    forecast: str = ""
    """A name: the predictions are kept in forecasts/NAME.json, to be scored by later runs."""
    score: str = ""
    """A kept forecast, as forecasts/NAME.json: what it said against what these runs measured."""
    figures: bool = True
    """Write figures as PNG and PDF."""
    report: bool = True
    """Write report.html."""

    def baseline_among(self, variants: Sequence[str]) -> str:
        """The baseline; where all runs have an option that it does not name, dense+structured-ffn for dense."""
        return in_full(self.baseline, variants)

    def __post_init__(self) -> None:
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"{name}={value} is not known; {suggest(value, allowed)}")
        for name in ("offset", "E"):
            self._offset(name)
        self._positive()
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise UserError(f"epochs={self.epochs} must be a positive number of passes over the data")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"confidence={self.confidence} must lie in [0.5, 1), for example 0.9")
        if not 20 <= self.bootstrap <= 100_000:
            raise UserError(f"bootstrap={self.bootstrap} must lie in 20..100000, for example 400")
        if not (0 <= self.hull_tolerance < 1 and 0 < self.window <= 2):
            raise UserError("tolerance must lie in [0, 1) and window in (0, 2]")
        Objective(self.objective, self.delta)

    def _positive(self) -> None:
        """Lists of positive numbers, the plateau, and a name that is a file name."""
        for name, one, unit in _LISTS:
            values = getattr(self, name)
            if any(not (value > 0 and math.isfinite(value)) for value in values):
                raise UserError(f"{name}={list(values)}: every {one} is a positive number of {unit}")
        if self.count_below not in COUNT_BELOW and self.plateau is None:
            raise UserError(f"count_below={self.count_below} is not known; nats, or {', '.join(COUNT_BELOW)}")
        if self.forecast and not self.forecast.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UserError(f"forecast={self.forecast} is no name of a file; use letters, digits, - and _")

    @property
    def plateau(self) -> float | None:
        """``count_below`` as a number of nats; None where it is a word."""
        try:
            value = float(self.count_below)
        except ValueError:
            return None
        return value if 0 < value < math.inf else None

    def _offset(self, name: str) -> float | None:
        """A pinned irreducible loss, or None to fit it."""
        text = getattr(self, name)
        if text == "fit":
            return None
        if text == "zero":
            return 0.0
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < math.inf:
            raise UserError(f"{name}={text} is not known; valid: fit, zero, or a number of nats >= 0")
        return value

    @property
    def hull_tolerance(self) -> float:
        """The tolerance that was given, or that of the procedure."""
        return TOLERANCES[self.procedure] if self.tolerance is None else self.tolerance

    @property
    def frontier_offset(self) -> float | None:
        """The pinned L0 of the frontier, or None."""
        return self._offset("offset")

    @property
    def pinned(self) -> float | None:
        """The pinned E of the parametric law, or None."""
        return self._offset("E")

    @property
    def loss_function(self) -> Objective:
        """The parametric objective."""
        return Objective(self.objective, self.delta)

    def record(self) -> dict[str, Any]:
        """As it stands in laws.json; only the keys that name no place on a machine."""
        places = {"runs", "out", "table", "dir", "cache", "figures", "report", "join", "forecast", "score"}
        kept = {name: value for name, value in asdict(self).items() if name not in places}
        return kept | {"tolerance": self.hull_tolerance}


def in_full(name: str, variants: Sequence[str]) -> str:
    """The variant of a name, or the only one that is it with options: btt+fixed-norm for btt, as tables shorten it."""
    longer = [variant for variant in variants if variant.startswith(f"{name}+")]
    return longer[0] if name not in variants and len(longer) == 1 else name


def parse(arguments: list[str]) -> Choices:
    """``key=value`` words -> Choices. Raises UserError with the nearest valid key or value."""
    names = {f.name: str(f.type) for f in fields(Choices)}
    values: dict[str, Any] = {}
    for word in arguments:
        key, equals, text = word.partition("=")
        key = key.lstrip("-")
        if not equals:
            raise UserError(f"'{word}' is not key=value; {suggest(key, names)}")
        if key not in names:
            raise UserError(f"unknown key '{key}'; {suggest(key, names)}")
        values[key] = text if key == "where" else _typed(key, names[key], _unquoted(text))
    choices = Choices(**values)
    needed = {"table": "table", "wandb": "project"}.get(choices.source)
    if needed and not getattr(choices, needed):
        raise UserError(f"source={choices.source} needs {needed}=...")
    if choices.table and choices.source == "runs":
        raise UserError("table=... is read with source=table")
    return choices


def _unquoted(text: str) -> str:
    """Quotes around a whole value are the same as none, as in sweep.py."""
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def _typed(key: str, kind: str, text: str) -> Any:
    """One value in the type of its field."""
    if kind == "str":
        return text
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text)
        if kind.startswith("float"):
            return float(text)
        if kind == "tuple[str, ...]":
            return tuple(part.strip() for part in text.strip("[]()").split(",") if part.strip())
        if key == "units" and text.strip().lower() == "text":
            return {ALL: "text"}
        if kind.startswith("tuple"):
            return tuple(float(part) for part in text.strip("[]()").split(",") if part.strip())
        return _mapping(text)
    except (ValueError, KeyError) as error:
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        example = wanted.get(
            kind.removesuffix(" | None"), "numbers such as 1e16,1e17" if kind.startswith("tuple") else "'{params: N}'"
        )
        raise UserError(f"{key}={text} is not understood; it takes {example}") from error


def _mapping(text: str) -> dict[str, str]:
    """A flat YAML mapping of words to words."""
    import yaml  # 30 ms, and only needed for mappings

    try:
        value = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(text) from error
    if not isinstance(value, dict) or any(not isinstance(v, str) for v in value.values()):
        raise ValueError(text)
    return {str(name): v for name, v in value.items()}


def help_text() -> str:
    """One line per key: its name, its default and the sentence under its field."""
    body = ast.parse(inspect.getsource(Choices).replace("\r", "")).body[0]
    assert isinstance(body, ast.ClassDef)
    defaults = {f.name: f.default for f in fields(Choices)}
    lines = []
    for name, sentence in zip(body.body, body.body[1:], strict=False):
        if isinstance(name, ast.AnnAssign) and isinstance(sentence, ast.Expr):
            assert isinstance(name.target, ast.Name)
            assert isinstance(sentence.value, ast.Constant)
            default = defaults[name.target.id]
            shown = default if isinstance(default, str | int | float) and default != "" else ""
            text = " ".join(str(sentence.value.value).split())
            lines.append(f"  {name.target.id + '=' + str(shown):<24} {text}")
    return "\n".join(lines)


def path_of(choices: Choices) -> Path:
    """The folder the results go to."""
    return Path(choices.out)
