"""How much of a GPU's memory does a training step take? Bytes by group, accounted from the shapes, without torch.

    weights      as stored, with the two moments of AdamW
    gradients    of all weights; they are whole where a batch comes in parts, else they grow as activations go
    casts        what a step makes of the weights: copies in bfloat16, capped factors
    kept         activations for the backward pass, as the GPU's paths keep them: a pair of products keeps what lies
                 between, a mixture the rows of all chosen experts
    loss         logits and their softmax, or those of a chunk
    work         what the largest single backward step holds besides

The peak is that of the largest moment: at the loss, in the backward pass of the last block, in that of the first, or in
the optimizer. Tested against peaks on fake CUDA tensors (bench/fake_cuda.py). An allocator and the CUDA context come on
top (``needed``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from types import SimpleNamespace

from structlin.anatomy.guide import guided_linears
from structlin.anatomy.kinds import anatomy
from structlin.anatomy.ledger import BYTES, ledger
from structlin.anatomy.shapes import Anatomy, LinearShape
from structlin.config.model import Gpt2Config, VitConfig
from structlin.config.optim import ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.data import vocab_size
from structlin.kernels.limits import CHUNK_ELEMENTS, LEAST_VOCABULARY, gpu_form

CONTEXT_BYTES = 1.0e9
"""CUDA's context, its libraries and kernels, a process (assumed; 0.5 to 1.2 GB are usual)."""
FRAGMENTS = 1.04
"""What an allocator of expandable segments holds over what is alive (assumed)."""
LEAST_TOKENS = 4096
"""Smaller parts leave a GPU idle, so ``fit`` lets blocks be computed again before."""
GB = 1e9


@dataclass(frozen=True)
class Peak:
    """Bytes alive in the largest moment of a step, by group."""

    weights: float
    gradients: float
    casts: float
    kept: float
    loss: float
    work: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.casts + self.kept + self.loss + self.work

    @property
    def needed(self) -> float:
        """Memory of a GPU that it wants."""
        return FRAGMENTS * self.total + CONTEXT_BYTES


def peak(science: Science, placement: Placement, ranks: int = 1) -> Peak:
    """The peak of a step of one process on CUDA, where each of some ranks holds all weights (ddp)."""
    return _peak(_costly(science), placement.recompute, _parts(science, placement, ranks), ranks)


def _costly(science: Science) -> Science:
    """What memory depends on of a run: one answer for all seeds and schedules."""
    return replace(science, seed=0, schedule=ScheduleConfig())


@lru_cache(maxsize=16_384)
def _peak(science: Science, recompute: bool, parts: int, ranks: int) -> Peak:
    step = _Step(science, anatomy(science))
    tokens = science.optim.batch_tokens / ranks / parts
    stored = ledger(science).weight_bytes + _guide_bytes(science)
    weights = 3.0 * stored
    gradients = float(stored)
    blocks = step.blocks()
    state = step.body.positions * step.stream * science.model.d_model
    inputs = len(blocks) * state
    # A block's own input is among the inputs of all.
    again = inputs + max(blocks) - state
    kept = again if recompute else sum(blocks)
    of_first = inputs / len(blocks) + blocks[0]
    loss, loss_kept = step.loss(tokens)
    grown = gradients if parts > 1 else 0.0
    casts, head = step.casts(), float(step.head_params * step.stream)
    # Blocks that are computed again have nothing but their inputs at the loss.
    at_loss = tokens * (inputs if recompute else kept)
    moments = (
        Peak(weights, grown, casts, at_loss, loss, 0.0),
        Peak(weights, grown, casts, at_loss, loss_kept, tokens * step.final_work()),
        Peak(weights, max(grown, head), casts, tokens * kept, 0.0, tokens * step.block_work()),
        Peak(weights, gradients, casts, tokens * of_first / 2, 0.0, tokens * step.block_work() / 2),
        Peak(weights, gradients, 0.0, 0.0, 0.0, 0.0),
    )
    return max(moments, key=lambda moment: moment.total)


def _guide_bytes(science: Science) -> int:
    """Of the dense matrices beside the factors, where a run is guided."""
    if science.guide.kind == "none":
        return 0
    return BYTES["float32"] * sum(shape.d_in * shape.d_out for shape in guided_linears(science))


# ---- fitting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A placement that fits, and what was picked for it."""

    placement: Placement
    said: str


def fitted(science: Science, placement: Placement, available: float, ranks: int = 1) -> Fitted:
    """``recompute`` and ``micro_tokens`` so that a step needs at most ``available`` bytes (0: not known).

    Parts of a batch cost nothing while they keep a GPU busy, so they come first, down to ``LEAST_TOKENS``; then blocks
    that are computed again, then smaller parts. Where nothing fits the smallest is given.
    """
    if not available or peak(science, placement, ranks).needed <= available:
        return Fitted(placement, "")
    ways = list(_ways(science, placement, ranks))
    large = [way for way in ways if _tokens(science, way, ranks) >= LEAST_TOKENS]
    for way in [*large, *ways]:
        if peak(science, way, ranks).needed <= available:
            return Fitted(way, f"fit=auto: {_said(way)}, {peak(science, way, ranks).needed / GB:.3g} GB")
    smallest = min(ways, key=lambda way: peak(science, way, ranks).needed)
    needs = peak(science, smallest, ranks).needed / GB
    return Fitted(smallest, f"fit=auto: {_said(smallest)}, which still needs {needs:.3g} GB")


def advice(science: Science, placement: Placement, available: float, ranks: int = 1) -> str:
    """Such as "needs 109 of 80 GB: recompute=true, micro_tokens=16384 or 2 GPUs"; empty where it fits."""

    def fits(way: Placement, on: int = ranks) -> bool:
        return peak(science, way, on).needed <= available

    if not available or fits(placement):
        return ""
    text = f"needs {peak(science, placement, ranks).needed / GB:.3g} of {available / GB:.3g} GB"
    ways = [way for way in _ways(science, placement, ranks) if fits(way)]
    # What suffices alone, or else both together.
    again = [way for way in ways if way.recompute and way.micro_tokens == placement.micro_tokens]
    parts = [way for way in ways if way.recompute == placement.recompute]
    said = [_said(way) for way in (*again[:1], *parts[:1])] or [_said(way) for way in ways[:1]]
    numbers = [n * ranks for n in (2, 4, 8, 16, 32, 64) if science.rows % (n * ranks) == 0]
    said += [f"{number} GPUs" for number in numbers if fits(placement, number)][:1]
    if not said:
        return f"{text}, and no part of it fits: a narrower model, or sharding=fsdp on several GPUs"
    *first, last = said
    return f"{text}: {', '.join(first)} or {last}" if first else f"{text}: {last}"


def _ways(science: Science, placement: Placement, ranks: int) -> Iterator[Placement]:
    """Ever smaller parts of at most the tokens asked for, blocks kept whole before they are computed again."""
    rows, context = max(1, science.rows // ranks), science.model.context
    most = rows * context if placement.micro_tokens == "auto" else int(placement.micro_tokens)
    sizes = [rows // parts * context for parts in range(1, rows + 1) if rows % parts == 0]
    for recompute in (False, True):
        if recompute >= placement.recompute:
            for tokens in sizes:
                if tokens <= max(most, context):
                    whole = tokens == rows * context
                    yield replace(placement, recompute=recompute, micro_tokens="auto" if whole else str(tokens))


def _said(placement: Placement) -> str:
    words = ["recompute=true"] if placement.recompute else []
    words += [f"micro_tokens={placement.micro_tokens}"] if placement.micro_tokens != "auto" else []
    return " ".join(words) or "as it is"


def _parts(science: Science, placement: Placement, ranks: int) -> int:
    """As structlin/training/parts.py divides a rank's rows."""
    rows, most = max(1, science.rows // ranks), placement.most_micro_tokens()
    if most is None:
        return 1
    largest = max(1, most // science.model.context)
    return next(parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= largest)


def _tokens(science: Science, placement: Placement, ranks: int) -> int:
    return science.optim.batch_tokens // ranks // _parts(science, placement, ranks)


# ---- what a step holds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """Bytes per token of a model's step on CUDA."""

    science: Science
    body: Anatomy

    @property
    def stream(self) -> int:
        """Bytes of an element of the residual stream, and of a weight."""
        return 8 if self.science.model.dtype == "float64" else 4

    @property
    def product(self) -> int:
        """Bytes of an element that products read."""
        return BYTES[self.science.model.dtype]

    @property
    def head_params(self) -> int:
        """Of the last linear, tied or not: its gradient is whole in either case."""
        return replace(self.body.linears[-1], tied=False).params

    def blocks(self) -> list[float]:
        """What each block keeps."""
        inner = [shape for shape in self.body.linears if shape.name.startswith("blocks.")]
        return [self._block(list(shapes)) for _, shapes in groupby(inner, lambda one: one.name.split(".")[1])]

    def _block(self, shapes: list[LinearShape]) -> float:
        model, w, s = self.science.model, self.product, self.stream
        width = model.d_model
        if isinstance(model, Gpt2Config | VitConfig):
            # Two states of the stream with their norms' moments; two normed inputs; q, k and v as attention reads
            # them, and its output; its log sums. Where there are norms, q and k before these, and their moments a head.
            both, heads = model.features + model.kv_features, model.features // model.head_size
            kept = float(2 * s * width + 2 * w * width + 2 * w * both + 4 * heads + 16)
            if model.qk_norm:
                kept += w * both + 8 * (both // model.head_size)
            kept *= self.body.positions
        else:
            kept = float(s * width + w * width)
        routers = {shape.router for shape in shapes if shape.router}
        kept += sum(map(self._kept_by, shapes))
        # Logits, probabilities and places of the chosen.
        experts = max((shape.num_experts for shape in shapes), default=0)
        active = max((shape.active_experts for shape in shapes), default=0)
        return kept + len(routers) * (4 * experts + 42 * active)

    def _kept_by(self, shape: LinearShape) -> float:
        """What one linear keeps besides the normed input."""
        return shape.uses * self.product * (self._of_experts(shape) if shape.router else self._of_linear(shape))

    def _of_linear(self, shape: LinearShape) -> float:
        """Elements besides the normed input: a hidden layer before and after its GELU, what lies between factors."""
        form, sizes = _form(shape), shape.plan.sizes
        hidden = shape.d_in * (1 if form == "fused" else 2) if shape.reads_gelu else 0
        copied = sizes.used_in if form == "chain" or (form == "pair" and _is_permuted(shape)) else 0
        if form == "chain" and shape.reads_gelu:
            hidden = shape.d_in * 2
        return hidden + copied + (sum(shape.plan.middles) if form in ("chain", "pair") else 0)

    def _of_experts(self, shape: LinearShape) -> float:
        """Elements of all chosen experts: gathered rows, what lies between factors, their results."""
        active, middles = shape.active_experts, sum(shape.plan.middles)
        is_up, is_down = (not shape.has_own_router and shape.name.endswith(end) for end in (".up", ".down"))
        # A hidden layer is kept before its GELU and as the product reads it.
        read = active * shape.d_in * (2 if is_down else 1)
        hidden = 2 * shape.d_in if shape.reads_gelu and not is_down else 0
        return read + active * middles + (0 if is_up else active * shape.d_out) + hidden

    def casts(self) -> float:
        """Bytes of weights in the dtype of products, and of factors under a cap that learns its scale."""
        norm, w = self.science.model.weight_norm, self.product
        total = 0.0
        for shape in self.body.linears:
            params = shape.num_experts * shape.plan.params
            copies = w if w < self.stream else 0
            if shape.router and not shape.sizes.dense:
                copies += w
            if norm == "learned" and not shape.sizes.dense:
                copies += self.stream if shape.learned_scale else 0
            total += params * copies
            if _form(shape) == "dense" and not shape.router and not shape.sizes.dense:
                total += 2 * w * shape.sizes.used_in * shape.sizes.used_out
        return total

    def loss(self, tokens: float) -> tuple[float, float]:
        """Bytes at the loss, and those that its backward pass reads."""
        model, w, s = self.science.model, self.product, self.stream
        last = (s + w) * model.d_model
        if not isinstance(model, Gpt2Config):
            classes = self.science.data.classes
            return tokens * (last + 16 + 3 * s * classes), tokens * (last + s * classes)
        vocab = vocab_size(self.science.data.tokenizer)
        if vocab >= LEAST_VOCABULARY:
            made = tokens * w * model.d_model + s * self.head_params
            rows = 1 << max(4, (CHUNK_ELEMENTS // vocab).bit_length() - 1)
            logits = min(tokens, rows) * vocab
            chunk = logits * (s + s + w) + (s + w) * self.head_params
            return tokens * last + made + chunk, tokens * last + made
        return tokens * (last + (w + 2 * s) * vocab), tokens * (last + s * vocab)

    def final_work(self) -> float:
        """The backward pass of the last norm: its gradient, widened, and that of the stream."""
        return 2 * self.stream * self.science.model.d_model

    def block_work(self) -> float:
        """The largest backward step in the last block: what it makes, less what the steps before it have given back."""
        model, w, s = self.science.model, self.product, self.stream
        last = [shape for shape in self.body.linears if shape.name.startswith(f"blocks.{model.num_layers - 1}.")]
        freed, most = 0.0, 0.0
        for shape in reversed(last):
            most = max(most, self._work_of(shape) - freed)
            freed += self._kept_by(shape)
        return (s + w) * self.body.positions * model.d_model + most

    def _work_of(self, shape: LinearShape) -> float:
        return shape.uses * self._work_once(shape)

    def _work_once(self, shape: LinearShape) -> float:
        w, s, active = self.product, self.stream, shape.active_experts
        if not shape.router:
            form = _form(shape)
            extra = 2 * sum(shape.plan.middles) if form in ("chain", "pair") else 0
            # A fused product makes the GELU that it reads again.
            extra += shape.d_in if form == "fused" and shape.reads_gelu else 0
            return w * (shape.d_in + extra)
        is_up = not shape.has_own_router and shape.name.endswith(".up")
        if is_up:
            return 2.0 * w * active * shape.d_out
        # The weighted sum is taken in float32: its terms by token, widened, times its gradient, which is widened too.
        return ((2 * s + w) * active + s) * float(shape.d_out)


def _form(shape: LinearShape) -> str:
    """single, chain, or how a GPU runs two factors (kernels/limits.py)."""
    factors = shape.plan.sizes.num_factors
    if shape.sizes.dense or factors == 1:
        return "single"
    return "chain" if factors > 2 else gpu_form(_roles(shape))


def _roles(shape: LinearShape) -> SimpleNamespace:
    """Sizes in the roles of the order taken (kernels/products/layout.py)."""
    s = shape.plan.sizes
    a_first = shape.plan.a_first
    b, a, d, e = (s.b, s.a, s.d, s.e) if a_first else (s.a, s.b, s.e, s.d)
    return SimpleNamespace(g=s.g, b=b, a=a, r=s.r, f=s.f, d=d, e=e)


def _is_permuted(shape: LinearShape) -> bool:
    """Whether rows of x have to be copied before the first of two plain products."""
    s = _roles(shape)
    return s.b > 1 and (s.g > 1 or not shape.plan.a_first)
