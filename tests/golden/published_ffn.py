"""What was published of StructuredFFN? The table of its studies, by hand from arXiv 2406.16450 and its configs."""

from __future__ import annotations

from typing import Any

from tests.golden.kind import Kind

RECIPE: dict[str, Any] = {
    "task": "language",
    "model.context": 1024,
    "model.ffn_expansion": 4,
    "model.structured": ["blocks.[1-9]*.ffn.*"],
    "model.positions": "rope",
    "model.tied": True,
    "model.biases": ["blocks.*", "norm"],
    "model.qk_norm": False,
    "model.branch_scale": "one",
    "model.logit_scale": "sqrt",
    "model.init_std": 0.02,
    "model.weight_norm": "none",
    "model.dtype": "bfloat16",
    "optim.name": "adamw",
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.weight_decay": 0.1,
    "optim.decayed": ["factor", "embedding", "router", "gain", "bias", "scale"],
    "optim.rate_rule": "plain",
    "optim.batch_tokens": 512 * 1024,
    "schedule.kind": "cosine",
    "schedule.final": 0.1,
    # One order of contraction is published, and sizes that divide.
    "structure.rounding": "exact",
    "structure.contraction": "cheapest",
}
SIZES = {"s": (768, 12, 64, 6e-4), "m": (1024, 24, 64, 3e-4), "l": (1536, 24, 128, 2.5e-4), "xl": (2048, 24, 128, 2e-4)}
"""Width, layers, head size, rate."""
STEPS = {"s": 4_197, "m": 12_780, "l": 27_848, "xl": 48_638}
"""2.2, 6.7, 14.6 and 25.5 billion tokens, in whole steps of 524,288."""
LOW_RANK = {63: "low_rank rank=d/2", 32: "low_rank rank=d/4"}
SHUFFLE = {63: "block_shuffle blocks=2", 32: "block_shuffle blocks=4"}
BLOCK_DENSE = {
    ("s", 63): "block_dense blocks=2 rank=2/3*d", ("s", 32): "block_dense blocks=2 rank=1/3*d",
    ("m", 63): "block_dense blocks=4 rank=3/4*d", ("m", 32): "block_dense blocks=4 rank=3/8*d",
    ("l", 63): "block_dense blocks=2 rank=2/3*d", ("l", 32): "block_dense blocks=2 rank=1/3*d",
    ("xl", 63): "block_dense blocks=4 rank=3/4*d", ("xl", 32): "block_dense blocks=4 rank=3/8*d",
}  # fmt: skip
STARTS = {"low_rank": "svd", "block_shuffle": "orthonormal", "block_dense": "orthonormal"}


def of_size(size: str, structure: str = "dense", steps: int | None = -1, **more: Any) -> Kind:
    """One kind of cell of a size; its own number of steps where none is said."""
    width, layers, head, lr = SIZES[size]
    own = (("model.d_head", head), ("optim.lr", lr), ("model.init", STARTS.get(structure.split()[0], "fixed")))
    widths = more.pop("widths", (width,))
    return Kind((structure,), widths, (layers,), steps=STEPS[size] if steps == -1 else steps, of_its_own=own, **more)


def structures(size: str, percent: int) -> tuple[str, str, str]:
    """The three of a size at a share of the parameters."""
    return LOW_RANK[percent], BLOCK_DENSE[size, percent], SHUFFLE[percent]


_GUIDED = ("s", "m", "xl")
_WHOLE: dict[str, Any] = {"steps": None, "lists": "whole"}
_COMPRESSED = [f"from dense {share} {how}" for share in (0.5, 0.8) for how in ("nearest", "aware")]
STUDIES: dict[str, tuple[dict[str, Any], tuple[Kind, ...]]] = {
    "guided": (
        RECIPE,
        (
            *(of_size(size) for size in _GUIDED),
            *(of_size(size, one) for size in _GUIDED for percent in (63, 32) for one in structures(size, percent)),
            *(
                of_size(size, one, None, extras=("stochastic guide",))
                for size in _GUIDED
                for one in structures(size, 32)
            ),
        ),
    ),
    "ffn_slopes": (
        RECIPE,
        (*map(of_size, SIZES), *(of_size(size, one) for size in SIZES for one in structures(size, 32))),
    ),
    # Ours, on the published models.
    "overtraining": (
        RECIPE,
        tuple(of_size("s", one, **_WHOLE) for one in ("dense", LOW_RANK[32])),
    ),
    "compressed": (
        RECIPE,
        (
            of_size("s", **_WHOLE),
            of_size("s", LOW_RANK[32], extras=("", *_COMPRESSED), **_WHOLE),
            of_size("s", "mpo cores=2 bond=224", extras=("from dense 0.5 nearest", "from dense 0.8 nearest"), **_WHOLE),
            of_size("s", extras=tuple(f"from low_rank-d:4 {share} nearest" for share in (0.5, 0.8, 0.9)), **_WHOLE),
        ),
    ),
    "wide_structured": (
        RECIPE,
        (
            of_size("m", extras=("", "kv4"), **_WHOLE),
            of_size("m", LOW_RANK[32], **_WHOLE),
            of_size("m", LOW_RANK[32], extras=("kv2 attention512",), widths=(1344, 1792), **_WHOLE),
        ),
    ),
}
