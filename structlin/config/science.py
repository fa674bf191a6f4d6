"""What changes the numbers of a run? ``Science``: every field here enters the run's identity, fully resolved.

All groups are frozen dataclasses validated where they are made. Lists are tuples, and nothing here is a DictConfig.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from structlin.config import nested as nesting
from structlin.config.checks import at_least, one_of
from structlin.config.guide import GuideConfig
from structlin.config.model import ALL_BLOCKS, MODELS, Gpt2Config, ModelConfig
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.structure import StructureConfig
from structlin.config.structured_ffn import FFN_BUT_FIRST, RECIPE, published_init
from structlin.data.augmentation import Augmentation
from structlin.data.recipe import SOURCES, DataRecipe, kinds_of
from structlin.errors import UserError

SCHEMA = 5
"""Version of the fields below; ``identity.upgrade`` fills the historical value of a field added later."""

NUMERICS = 1
"""Version of the mathematics: raised when the same Science would train to other numbers."""
NUMERICS_OF = {"bfloat16": 3, "float32": 3, "tf32": 3}
"""Of a dtype whose numbers alone have changed. bfloat16, 2: the norms of attention's queries and keys stay in it, a
router reads what the experts do, and the loss of a large vocabulary is summed in chunks; 3: a router's gradients are
float32 products also where its model is compiled; 4, of mixtures in attention alone: a GPU routes queries, keys and
values by one product. float32 and tf32, 2: a CPU sums the steps of narrow GPT-2s and of the
regression's MLP in another order (kernels/steps), not those on images; 3: their evaluations too."""


def numerics_of(dtype: str, task: str, moe: MoeConfig) -> int:
    """Version of the numbers that today's code trains to."""
    if dtype == "bfloat16":
        return NUMERICS_OF[dtype] + moe.routes_attention
    return NUMERICS if task == "classification" else NUMERICS_OF.get(dtype, NUMERICS)


TASKS = {
    "language": "language",
    "pixels": "pixels",
    "regression": "regression",
    "classification": "classification",
}
"""Task -> the kind of its data and of the models that can learn it (DataRecipe.kind, ModelConfig.LEARNS)."""

DENSE = "(0|0|1|0|0|1|0)"
"""theta of a dense layer."""

MOST_SEED = 2**31
"""Seeds stay below, so that they fit the integers of every generator."""


@dataclass(frozen=True)
class EvaluationConfig:
    """The fixed validation batches; how often they are used is not part of a run's identity."""

    tokens: int = 1_048_576
    """Validation tokens, in evenly spaced windows of the validation split; of labelled images so many of them."""

    def __post_init__(self) -> None:
        at_least("evaluation.tokens", self.tokens, 1)


@dataclass(frozen=True)
class StartConfig:
    """What the first weights come from: a draw by the seed, or another run, its parent."""

    parent: Science | None = None
    """The run that is gone on from; None: weights are drawn."""
    step: int = 0
    """Its updates."""
    share: float | None = None
    """Of all training FLOPs those of the parent, where they were asked for so."""
    conversion: str = "nearest"
    """How linears of another structure come by their factors: nearest to the parent's matrix, or aware: on the inputs
    that it meets."""
    calibration_tokens: int = 0
    """Tokens whose activations an aware conversion reads."""

    def __post_init__(self) -> None:
        if self.parent is None:
            for name, value in (("step", 0), ("share", None), ("conversion", "nearest"), ("calibration_tokens", 0)):
                object.__setattr__(self, name, value)
            return
        one_of("start.conversion", self.conversion, ("nearest", "aware"))
        at_least("start.step", self.step, 0)
        if self.share is not None and not 0 < self.share < 1:
            raise UserError(f"start.share = {self.share} must lie between 0 and 1: the rest is for the run itself")
        if self.conversion == "nearest":
            object.__setattr__(self, "calibration_tokens", 0)
        else:
            at_least("start.calibration_tokens", self.calibration_tokens, 1)

    @property
    def label(self) -> str:
        """In the name of a variant: from-dense.5, from-btt@2000, from-dense.5-aware."""
        assert self.parent is not None
        part = f"@{self.step}" if self.share is None else f"{self.share:g}".removeprefix("0")
        aware = "" if self.conversion == "nearest" else "-aware"
        return f"from-{self.parent.variant}{part}{aware}"


@dataclass(frozen=True)
class Science:
    """All that changes a run's numbers. Its canonical JSON, hashed, is the run's id."""

    structure: StructureConfig = field(default_factory=StructureConfig)
    moe: MoeConfig = field(default_factory=MoeConfig)
    model: ModelConfig = field(default_factory=Gpt2Config)
    data: DataRecipe = field(default_factory=lambda: DataRecipe(name="sotu"))
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    augment: Augmentation = field(default_factory=Augmentation)
    """What is done to labelled images while they train; none to all else."""
    seed: int = 0
    task: str = "language"
    guide: GuideConfig = field(default_factory=GuideConfig)
    start: StartConfig = field(default_factory=StartConfig)
    nested: str = "none"
    """Shares of the rank that one run is trained at, as text (config/nested.py); none: the whole rank alone."""
    schema: int = SCHEMA
    numerics: int = 0
    """Of the code that trains it; 0: today's."""

    def __post_init__(self) -> None:
        if not self.numerics:
            object.__setattr__(self, "numerics", numerics_of(self.model.dtype, self.task, self.moe))
        one_of("task", self.task, tuple(TASKS))
        kind = TASKS[self.task]
        if kind not in self.model.LEARNS:
            able = "|".join(name for name, model in MODELS.items() if kind in model.LEARNS)
            raise UserError(f"task = {self.task} is learned by model={able}, not {self.model.name}")
        self._check_data()
        object.__setattr__(self, "nested", nesting.canonical(self.nested))
        self._check_mixture()
        self._check_guide()
        self._check_nested()
        if not 0 <= self.seed < MOST_SEED:
            raise UserError(f"seed = {self.seed} must lie in [0, {MOST_SEED})")
        if self.optim.batch_tokens % self.model.context:
            raise UserError(
                f"optim.batch_tokens = {self.optim.batch_tokens} is no multiple of model.context = "
                f"{self.model.context}; a step takes whole sequences"
            )
        self._check_start()
        self._check_layout()
        if self.structure_is_idle:
            object.__setattr__(self, "structure", StructureConfig(DENSE))

    def _check_start(self) -> None:
        """Singular values start two factors, not three and not experts; dense layers have no factors to start."""
        if self.structure.is_dense and self.moe.kind == "none" and self.model.init in ("orthonormal", "svd"):
            # One way to say it, so that it has one identity.
            object.__setattr__(self, "model", replace(self.model, init="fixed"))
        if self.model.init != "svd":
            return
        if self.structure.num_factors > 2 or self.moe.kind != "none":
            what = f"moe = {self.moe.kind}" if self.moe.kind != "none" else f"structure {self.structure.name}"
            raise UserError(
                f"model.init = svd starts layers of two factors, and {what} has others; use model.init=fixed, or "
                "orthonormal"
            )

    def _check_layout(self) -> None:
        """A head layout is that of square layers."""
        model, layout = self.model, self.structure.head_layout
        if layout == "none" or not isinstance(model, Gpt2Config):
            return
        for key in ("attention_width", "kv_heads"):
            if getattr(model, key) is not None:
                raise UserError(
                    f"structure.head_layout = {layout} lays out q, k, v and o of one shape, d_model x d_model, which "
                    f"model.{key} = {getattr(model, key)} changes; use model.{key}=null, or structure.head_layout=none"
                )

    def _check_data(self) -> None:
        """The data are of the task, and an image is a sequence."""
        kind = self.data.kind
        if kind != TASKS[self.task]:
            valid = "|".join(name for name in SOURCES if TASKS[self.task] in kinds_of(name))
            read = (
                f" read by data.tokenizer={self.data.tokenizer}" if TASKS[self.task] in kinds_of(self.data.name) else ""
            )
            raise UserError(f"task = {self.task} learns from data={valid}, not {self.data.name}{read}")
        if kind != "classification" and not self.augment.is_none:
            raise UserError(f"task = {self.task} has no labelled images to augment; use augment=none")
        self.model.check_images(self.data.shape if kind == "classification" else None)
        tokens = self.data.sample_tokens
        # A whole image may be read after the start token: what its last token says is then asked nothing.
        lengths = (tokens, tokens + 1) if kind == "pixels" else (tokens,)
        if tokens and self.model.context not in lengths:
            raise UserError(
                f"model.context = {self.model.context}, but an image of data={self.data.name} has "
                f"{tokens} tokens; set model.context={tokens}, or {tokens + 1} to read its last token too"
            )

    def _check_mixture(self) -> None:
        """Experts are built into the blocks of a GPT-2, have two factors at most and no biases."""
        is_capped = self.moe.kind != "none" and self.model.weight_norm != "none"
        model = self.model
        if isinstance(model, Gpt2Config) and not is_capped:
            # Without experts, or a cap of theirs, it is never read: one value, so that it has one identity.
            object.__setattr__(self, "model", replace(model, weight_norm_experts="own"))
        if self.moe.kind == "none":
            return
        if not isinstance(model, Gpt2Config):
            raise UserError(f"moe = {self.moe.kind} is built into model=gpt2 only, not {model.name}; use moe=none")
        if self.structure.num_factors > 2:
            raise UserError(
                f"moe = {self.moe.kind} mixes experts of at most two factors, and structure {self.structure.name} has "
                f"{self.structure.num_factors}; use moe=none, or a structure of two"
            )
        if model.biases:
            raise UserError(
                f"model.biases = {list(model.biases)} and moe = {self.moe.kind}: experts have no biases; use "
                "model.biases=[], or moe=none"
            )

    def _check_guide(self) -> None:
        """A guide stands beside factors; a model without any has none, and so one identity."""
        if self.guide.kind == "none":
            return
        if self.structure.theta == DENSE and self.moe.kind == "none":
            object.__setattr__(self, "guide", GuideConfig())
        elif self.moe.kind != "none":
            raise UserError(
                f"guide = {self.guide.kind} and moe = {self.moe.kind}: experts are not guided; use guide=none, or "
                "moe=none"
            )

    def _check_nested(self) -> None:
        """Ranks are nested of two factors, and of nothing that computes beside them or in their stead."""
        if self.nested == nesting.NONE:
            return
        what, way = "", ""
        if self.moe.kind != "none":
            what, way = f"moe = {self.moe.kind}: experts are trained at their whole rank", "moe=none"
        elif self.guide.kind != "none":
            what, way = f"guide = {self.guide.kind}: a guide stands beside the whole rank", "guide=none"
        elif self.structure.is_dense and self.structure.ranks == "none":
            what, way = "structure dense, which has no ranks", "a structure of two factors, as structure=low_rank"
        elif self.structure.num_factors > 2:
            count = self.structure.num_factors
            what, way = f"structure {self.structure.name} of {count} factors", "a structure of two factors"
        if what:
            raise UserError(f"nested.menu = [{self.nested}] and {what}; use {way}, or nested.menu=none")

    @property
    def structure_is_idle(self) -> bool:
        """Whether experts replace the structure in every linear that would take it; it then is dense by convention."""
        return self.moe.replaces_structure and self.model.structured == ALL_BLOCKS

    @property
    def rows(self) -> int:
        """Sequences an optimizer step."""
        return self.optim.batch_tokens // self.model.context

    @property
    def variant(self) -> str:
        """The key that laws group by: the structure, and whatever option makes it another kind of model.

        E.g. ``btt``, ``btt+head`` (the head structured too), ``btt+learned-norm``, ``btt+naive`` (the rate rule),
        ``dense+rope+kv4`` (rotated positions, four heads of keys and values), ``dense+structured-ffn`` (a recipe),
        ``moe-btt8`` (a mixture of 8 experts; ``btt+moe-ffn8`` where attention or experts take the structure).
        """
        recipe, (first, *more) = self._recipe, self.model.structured
        usual = FFN_BUT_FIRST if "structured-ffn" in recipe else ALL_BLOCKS
        options = [",".join(self.model.structured)]
        if self.model.structured == usual:
            options = []
        elif (first,) == ALL_BLOCKS and set(more) <= set(self.model.OUTER_LINEARS):
            options = more
        elif self.model.structured == ("head",):
            options = ["head-alone"]
        if self.model.weight_norm != "none":
            options.append(f"{self.model.weight_norm}-norm")
        if isinstance(self.model, Gpt2Config) and self.model.weight_norm_experts != "own":
            options.append(f"{self.model.weight_norm_experts}-cap")
        if self.structure.contraction != "cheapest":
            options.append(f"{self.structure.contraction}-order")
        if self.optim.rate_rule == "naive":
            options.append(self.optim.rate_rule)
        if self.guide.kind != "none":
            options.append(self.guide.label)
        if self.nested != nesting.NONE:
            options.append(nesting.label(self.nested))
        mixture = [] if self.moe.kind == "none" else [self.moe.label]
        structure = [] if mixture and self.structure.name == "dense" else [self.structure.name]
        # A dense layer has no cap, no order and one rate by both rules: none of these options makes it another.
        options = [] if structure == ["dense"] else options
        if self.start.parent is not None:
            options.append(self.start.label)
        return "+".join([*structure, *mixture, *options, *recipe])

    @property
    def _recipe(self) -> list[str]:
        """What of the model, its rates and its start is not as in arXiv 2410.02117, by words; a recipe by its name."""
        model = self.model
        words = [*model.recipe, *(["plain"] if self.optim.rate_rule == "plain" else [])]
        if set(words) >= set(RECIPE):
            words = ["structured-ffn", *(word for word in words if word not in RECIPE)]
            if model.init == published_init(self.structure.plain_name):
                return words
        return words if model.init == "spectral" else [*words, f"{model.init}-init"]

    @lru_cache(maxsize=65_536)  # noqa: B019 (a plan asks for few widths of few sciences, many times)
    def at_width(self, d_model: int) -> Science:
        """The same science at another width, and so what it starts from."""
        parent = self.start.parent
        start = self.start if parent is None else replace(self.start, parent=parent.at_width(d_model))
        return replace(self, model=replace(self.model, d_model=d_model), start=start)

    def scheduled(self, kind: str, horizon_steps: int | None) -> Science:
        """The same science under another schedule; a constant rate drops the horizon."""
        return replace(self, schedule=replace(self.schedule, kind=kind, horizon_steps=horizon_steps))

    def of_now(self) -> Science:
        """The same science, and what it starts from, as today's code trains it: another run, where NUMERICS rose."""
        parent = self.start.parent
        start = self.start if parent is None else replace(self.start, parent=parent.of_now())
        return replace(self, numerics=0, start=start)
