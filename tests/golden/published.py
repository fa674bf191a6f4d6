"""What was published? The table that every study and scale of the paper's size must equal, field by field.

Written by hand from the released scripts and parser defaults of arXiv 2410.02117 and 2406.06248, in the words of our
configs. Numbers
stand as numbers, so that no constant of the code can move both sides. What we do otherwise stands in
configs/deviations.yaml, never here.
"""

from __future__ import annotations

from typing import Any

from tests.golden import published_ffn
from tests.golden.kind import Kind

THETAS = (
    "btt1", "btt2", "btt3", "btt5", "btt6", "btt7", "btt8", "btt9", "btt10", "btt11", "btt12", "btt13", "btt14",
    "btt15", "btt16", "tt1", "tt2", "tt3", "tt4", "l1", "l2", "g1", "g2",
)  # fmt: skip
DENSE_WIDTHS = (256, 512, 768, 1024)
WIDTHS = (256, 512, 768, 1024, 2048, 4096)
BTT_MOE_WIDTHS = (256, 512, 1024, 2048)
STANDARD_WIDTHS = (128, 256, 512, 1024)

LANGUAGE: dict[str, Any] = {
    "task": "language",
    "data.name": "openwebtext",
    "data.tokenizer": "char96",
    "model.d_head": 64,
    "model.num_heads": None,
    "model.context": 128,
    "model.ffn_expansion": 4,
    "model.structured": ["blocks.*"],
    "model.biases": [],
    "model.zero_start": [],
    "model.weight_norm": "fixed",
    "model.base_width": 768,
    "model.base_ffn_expansion": 1,
    "model.dtype": "bfloat16",
    "optim.name": "adamw",
    "optim.lr": 3e-3,
    "optim.beta1": 0.9,
    "optim.beta2": 0.95,
    "optim.eps": 1e-8,
    "optim.weight_decay": 0.0,
    "optim.clip": 1.0,
    "optim.rate_rule": "structure",
    "optim.batch_tokens": 512 * 128,
    "schedule.kind": "constant",
    "schedule.warmup_steps": 2_000,
    "structure.rounding": "paper",
}
MIXTURES: dict[str, Any] = {**LANGUAGE, "model.weight_norm": "learned"}
PIXELS: dict[str, Any] = {
    "task": "pixels",
    "data.name": "cifar5m",
    "model.d_head": None,
    "model.num_heads": 8,
    "model.context": 193,
    "model.ffn_expansion": 4,
    "model.structured": ["blocks.*"],
    "model.biases": ["blocks.*.attention.o", "blocks.*.ffn.*", "head", "*norm"],
    "model.zero_start": ["blocks.*.attention.q"],
    "model.weight_norm": "fixed",
    "model.base_width": 64,
    "model.base_ffn_expansion": 4,
    "model.dtype": "float32 with TF32",
    "optim.name": "adamw",
    "optim.lr": 3e-3,
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.eps": 1e-8,
    "optim.weight_decay": 0.0,
    "optim.clip": 0.0,
    "optim.rate_rule": "structure",
    "optim.batch_tokens": 64 * 193,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 0,
    "schedule.final": 0.0,
    "structure.rounding": "paper",
}
REGRESSION: dict[str, Any] = {
    "task": "regression",
    "data.name": "teacher",
    "data.width": 1024,
    "data.depth": 6,
    "model.ffn_expansion": 4,
    "model.structured": ["blocks.*"],
    "model.biases": ["*"],
    "model.outer_norm": "input",
    "model.weight_norm": "none",
    "model.base_width": 64,
    "model.base_ffn_expansion": 4,
    "model.dtype": "float32",
    "optim.name": "adamw",
    "optim.lr": 1e-3,
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.eps": 1e-8,
    "optim.weight_decay": 0.0,
    "optim.clip": 0.0,
    "optim.rate_rule": "structure",
    "optim.batch_tokens": 4_096,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 0,
    "schedule.final": 0.0,
    "evaluation.tokens": 4_096,
    "structure.rounding": "paper",
}
IMAGES: dict[str, Any] = {
    "task": "classification",
    "data.name": "cifar10",
    "model.ffn_expansion": 4,
    "model.weight_norm": "none",
    "model.base_width": 64,
    "model.base_ffn_expansion": 4,
    "model.dtype": "float32 with TF32",
    "optim.name": "adamw",
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.eps": 1e-8,
    "optim.weight_decay": 0.0,
    "optim.clip": 0.0,
    "augment.crop": "resized",
    "augment.flip": True,
    "augment.mixup": 0.8,
    "augment.smoothing": 0.3,
    "schedule.warmup_steps": 0,
    "structure.rounding": "paper",
}
_MLP = (
    ("optim.lr", 3e-3), ("optim.batch_tokens", 1024), ("model.input_rate", 0.1), ("model.outer_norm", "none"),
    ("model.biases", ["*"]), ("model.structured", ["blocks.*", "input"]),
)  # fmt: skip
_VIT = (
    ("optim.lr", 1e-3), ("optim.batch_tokens", 256), ("model.input_rate", 1.0), ("model.patch", 8),
    ("model.num_heads", 8),
    ("model.pool", "class"), ("model.zero_start", ["blocks.*.attention.q"]),
    ("model.biases", ["*norm", "input", "blocks.*.attention.o", "blocks.*.ffn.*", "head"]),
)  # fmt: skip
_ALL_BUT_HEAD = (("model.structured", ["blocks.*", "input"]),)
_INNER = (("model.structured", ["blocks.*"]),)
# 50,000 images: 500 epochs of 1,024 a step, 200 of 256; here a last step of an epoch may reach into the next.
_MLP_STEPS, _VIT_STEPS = 24_415, 39_063
_DOUBLED = tuple(64 * 2**k for k in range(1, 9))


def mlps(structures: tuple[str, ...], widths: tuple[int, ...]) -> Kind:
    """MLPs of CIFAR."""
    return Kind(structures, widths, (3,), model="mlp", steps=_MLP_STEPS, of_its_own=_MLP)


def vits(
    structures: tuple[str, ...], widths: tuple[int, ...], own: tuple[tuple[str, Any], ...] = _ALL_BUT_HEAD
) -> Kind:
    """ViTs of CIFAR."""
    return Kind(structures, widths, (3,), model="vit", steps=_VIT_STEPS, of_its_own=(*_VIT, *own))


CIFAR = (
    mlps(("dense",), (32, 64, 128, 256, 512, 1024, 2048, 4096)),
    mlps(("low_rank", "kronecker", "btt"), _DOUBLED),
    mlps(("monarch blocks=4",), tuple(int(64 * k) for k in (0.7, 1.4, 2.8, 5.6, 11, 22, 45, 90))),
    mlps(("mpo cores=2 bond=16",), (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)),
    vits(("dense",), (32, 64, 128, 256, 384, 512, 640, 768)),
    vits(("kronecker", "btt"), (64, 128, 256, 512, 1024, 2048, 4096)),
    vits(("low_rank rank=1/10*d",), (64, 128, 256, 512, 1024, 2048), _INNER),
    vits(("monarch blocks=4",), (32, 96, 256, 512, 768, 1024)),
    vits(("mpo cores=2 bond=8",), (32, 64, 128, 256, 512, 1024, 2048)),
)
_LANDSCAPE = {**IMAGES, "model.input_rate": 0.1, "optim.batch_tokens": 1024,
              "model.structured": ["blocks.*", "input"], "schedule.kind": "constant"}  # fmt: skip
_NO_OUTER_NORM = (("model.outer_norm", "none"),)
_FIVE, _LAST_THREE = (16, 64, 256, 1024, 4096), (256, 1024, 4096)


def of_two_layers(steps: int) -> tuple[Kind, ...]:
    """The MLPs of figures 2a and 2b."""
    return (
        Kind(
            ("dense", "kronecker", "low_rank", "btt"), _FIVE, (2,), model="mlp", steps=steps, of_its_own=_NO_OUTER_NORM
        ),
        Kind(
            ("monarch blocks=16",),
            _LAST_THREE,
            (2,),
            model="mlp",
            steps=steps,
            of_its_own=_NO_OUTER_NORM,
            lists="widths",
        ),
    )


# Ours, on the published models: three factors, and the ViT at constant rates over 100 epochs.
_MORE_RATES = (
    Kind(("btt factors=3 rank=2",), _FIVE[1:], (2,), model="mlp", steps=4_883, of_its_own=_NO_OUTER_NORM,
         lists="models"),
    Kind(("dense", "btt", "btt factors=3 rank=2", "monarch blocks=4"), (64, 256, 1024), (3,), model="vit",
         steps=19_532, lists="models",
         of_its_own=tuple((name, value) for name, value in (*_VIT, *_ALL_BUT_HEAD) if name != "optim.lr")),
)  # fmt: skip

_ROUTED = (("moe.top_k", 2), ("moe.layers", "all"), ("moe.auxiliary_weight", 0.01), ("moe.z_weight", 0.1))
_BTT_MOE = Kind(
    ("dense",), BTT_MOE_WIDTHS, (3, 6, 9), "btt", (8, 16),
    of_its_own=(*_ROUTED, ("moe.router_start", "zero"), ("model.weight_norm_experts", "shared")),
)  # fmt: skip
_STANDARD = Kind(
    ("dense",), STANDARD_WIDTHS, (3, 6, 9), "ffn", (8, 16),
    of_its_own=(*_ROUTED[:1], ("moe.layers", "ffn"), *_ROUTED[2:], ("moe.router_start", "random")),
)  # fmt: skip
_DENSE = Kind(("dense",), DENSE_WIDTHS, (3, 6, 9), lists="baselines")

_EVERYWHERE = ("model.structured", ["blocks.*", "head"])
# 6 heads of 64 features at every width but the last, which has 12.
_HEADS = (("model.attention_width", 6 * 64), ("model.attention_width", 12 * 64))

_IMAGENET: dict[str, Any] = {
    "task": "classification",
    "data.name": "images",
    "data.size": 224,
    "data.classes": 1000,
    "model.name": "vit",
    "model.patch": 32,
    "model.num_heads": 4,
    "model.structured": ["blocks.*", "input"],
    "model.ffn_expansion": 4,
    "model.base_width": 256,
    "model.base_ffn_expansion": 4,
    "optim.name": "adamw",
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.rate_rule": "structure",
    "optim.batch_tokens": 3_072,
    "augment.mixup": 0.2,
    "augment.smoothing": 0.1,
    "schedule.kind": "cosine",
    "schedule.final": 0.0,
    # 5 epochs of 1,281,167 images in batches of 3,072.
    "schedule.warmup_steps": 2_085,
    "structure.rounding": "paper",
}
# 300 of them.
_IMAGENET_STEPS = 125_114


def imagenet(structure: str, widths: tuple[int, ...], cap: str = "none") -> Kind:
    """ViT/32 of 12 layers."""
    own = (("model.weight_norm", cap),) if structure != "dense" else ()
    return Kind((structure,), widths, (12,), model="vit", steps=_IMAGENET_STEPS, of_its_own=own)


STUDIES: dict[str, tuple[dict[str, Any], tuple[Kind, ...]]] = {
    "fig4": (LANGUAGE, (Kind(("dense",), DENSE_WIDTHS, (3, 6)), Kind(THETAS, WIDTHS, (3, 6)))),
    "fig6": (
        MIXTURES,
        (_BTT_MOE, _STANDARD, _DENSE, Kind(("btt1",), BTT_MOE_WIDTHS, (3, 6, 9), lists="baselines")),
    ),
    "fig7": (
        MIXTURES,
        (
            _BTT_MOE,
            _STANDARD,
            _DENSE,
            Kind(("dense",), STANDARD_WIDTHS, (3, 6, 9), "dense", (8, 16), of_its_own=_ROUTED, lists="widths"),
            Kind(("dense",), BTT_MOE_WIDTHS, (3, 6, 9), "low_rank", (8, 16), of_its_own=_ROUTED, lists="widths"),
        ),
    ),
    "fig10": (
        LANGUAGE,
        (Kind(("btt1",), WIDTHS, (3,), layouts=("none", "nddn", "dndn", "ndnd", "dnnd"), lists="widths"),),
    ),
    "bpe": (
        {
            **LANGUAGE,
            "data.tokenizer": "gpt2",
            "model.context": 512,
            "optim.lr": 6e-4,
            "optim.batch_tokens": 12 * 40 * 512,
            "schedule.kind": "cosine",
            "schedule.final": 0.1,
        },
        (Kind(("dense", *THETAS), (256, 512, 768, 1024, 1536), (6,), steps=None, lists="widths"),),
    ),
    "pixels": (
        PIXELS,
        (
            Kind(("dense",), (32, 64, 128, 256, 512), (3,), steps=156_250),
            Kind(("btt1", "btt11", "btt7", "l2", "tt1", "tt2"), (32, 64, 128, 256, 512, 1024), (3,), steps=156_250),
        ),
    ),
    "regression": (
        REGRESSION,
        (
            Kind(THETAS, (64, 128, 512, 1024, 2048, 4096), (3,), steps=1_000_000),
            Kind(("dense",), (64, 128, 512, 1024, 2048, 4096), (3,), steps=1_000_000, lists="structures"),
        ),
    ),
    "cifar": ({**IMAGES, "schedule.kind": "cosine", "schedule.final": 0.0, "optim.rate_rule": "structure"}, CIFAR),
    "feature_updates": ({**_LANDSCAPE, "optim.lr": 3e-3, "model.biases": []}, of_two_layers(_MLP_STEPS)),
    "rate_landscape": ({**_LANDSCAPE, "model.biases": ["*"]}, (*of_two_layers(4_883), *_MORE_RATES)),
    "btt_gpt2": (
        {
            **LANGUAGE,
            "data.tokenizer": "gpt2",
            "model.context": 512,
            "model.weight_norm": "learned",
            "optim.lr": 2e-3,
            "optim.batch_tokens": 480 * 512,
            "schedule.kind": "cosine",
            "schedule.final": 0.1,
        },
        (
            Kind(("btt rank=4",), (1024, 1536, 2048), (12,), steps=600_000, of_its_own=(_EVERYWHERE, _HEADS[0])),
            Kind(("btt rank=4",), (2560,), (12,), steps=600_000, of_its_own=(_EVERYWHERE, _HEADS[1])),
            Kind(("dense",), (384, 512, 768), (12,), steps=600_000),
        ),
    ),
    "imagenet": (
        {**_IMAGENET, "optim.lr": 2e-3, "optim.weight_decay": 0.05, "optim.clip": 1.0},
        (
            imagenet("dense", (80, 192, 384)),
            imagenet("btt rank=1", (256, 784, 1936), "fixed"),
            imagenet("btt rank=2", (144, 484, 1296), "fixed"),
            imagenet("monarch blocks=4", (140, 316, 632)),
            imagenet("monarch blocks=16", (280, 632, 1264)),
        ),
    ),
    # Ours, on the published models.
    "weight_norm": (
        _IMAGENET,
        (
            Kind(("btt",), (256, 784), (12,), model="vit", steps=_IMAGENET_STEPS, lists="whole"),
            Kind(("monarch blocks=4",), (316,), (12,), model="vit", steps=_IMAGENET_STEPS, lists="whole"),
        ),
    ),
    "xi": (
        {**IMAGES, "schedule.kind": "cosine", "schedule.final": 0.0, "optim.rate_rule": "structure", **dict(_MLP)},
        (
            Kind(
                (
                    "dense",
                    *(f"low_rank rank=d/{k}" for k in (32, 16, 8, 4)),
                    *(f"btt rank={r}" for r in (1, 2, 4, 8)),
                    *(f"btt factors=3 rank={r}" for r in (1, 2, 4)),
                    *(f"monarch blocks={b}" for b in (2, 4, 8, 16)),
                ),
                (256, 1024, 4096),
                (3,),
                model="mlp",
                steps=_MLP_STEPS,
                lists="whole",
            ),
        ),
    ),
    "head": (
        {name: value for name, value in LANGUAGE.items() if name not in ("data.tokenizer", "model.structured")}
        | {"schedule.kind": "cosine"},
        (Kind(("dense", "btt"), DENSE_WIDTHS, (3,), lists="whole"),),
    ),
    # Of arXiv 2406.06248 on images; this one is ours, on the published regression.
    "learning_rates": (
        {name: value for name, value in REGRESSION.items() if name not in ("optim.lr", "optim.rate_rule")},
        (Kind(("dense", "btt1", "l2"), (64, 128, 256, 512, 1024, 2048, 4096), (3,), steps=20_000, lists="whole"),),
    ),
}
"""Study -> what all of its cells have in common, and its kinds of cells."""
STUDIES |= published_ffn.STUDIES

SCALES: dict[str, dict[str, Any]] = {"paper": LANGUAGE, "pixels": PIXELS, "regression": REGRESSION}
"""The same of the scales alone, under the task that is theirs."""
