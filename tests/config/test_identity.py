"""Identity: every field of Science changes it; nothing else does, in any process."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structlin.config.doors import sweep_request, train_request
from structlin.config.identity import canonical_json, run_id, science_from, to_mapping, upgrade
from structlin.config.model import DTYPES, MlpConfig, VitConfig
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.science import SCHEMA, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.data.augmentation import Augmentation
from structlin.errors import UserError
from tests.schemas import id_of, stored_by
from tests.tiny import tiny

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "run_ids.json").read_text())

# Every field of a cooldown's Science (it reads them all) with another value.
CHANGED: dict[str, Any] = {
    "structure.theta": "(1/2|0|1/2|0|1/2|1/2|1/4)",
    "structure.rounding": "paper",
    "structure.head_layout": "nddn",
    "structure.output_order": "efd",
    "structure.contraction": "first",
    "structure.ranks": '{"blocks.0.ffn.up": 4}',
    "moe.kind": "low_rank",
    "moe.num_experts": 4,
    "moe.top_k": 1,
    "moe.evaluation_top_k": 1,
    "moe.layers": "ffn",
    "moe.capacity": 2.0,
    "moe.auxiliary_weight": 0.02,
    "moe.z_weight": 0.2,
    "moe.router_start": "random",
    "model.name": None,
    "model.d_model": 32,
    "model.num_layers": 2,
    "model.d_head": 16,
    "model.num_heads": None,
    "model.ffn_expansion": 2,
    "model.context": 32,
    "model.structured": ("blocks.*", "head"),
    "model.weight_norm": "fixed",
    "model.weight_norm_experts": None,
    "model.zero_start": ("blocks.*.attention.q",),
    "model.biases": None,
    "model.init": "fixed",
    "model.init_std": 0.03,
    "model.positions": "rope",
    "model.tied": True,
    "model.kv_heads": 1,
    "model.attention_width": 24,
    "model.qk_norm": False,
    "model.branch_scale": "one",
    "model.logit_scale": "sqrt",
    "model.base_width": 32,
    "model.base_ffn_expansion": 2,
    "model.dtype": "float64",
    "optim.name": None,
    "optim.lr": 2e-3,
    "optim.beta1": 0.8,
    "optim.beta2": 0.9,
    "optim.eps": 1e-9,
    "optim.weight_decay": 0.1,
    "optim.decayed": None,
    "optim.clip": 0.5,
    "optim.rate_rule": "naive",
    "optim.batch_tokens": 128,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 5,
    "schedule.horizon_steps": 60,
    "schedule.final": 0.2,
    "schedule.cooldown_fraction": 0.3,
    "evaluation.tokens": 512,
    "data.name": "openwebtext",
    "data.tokenizer": "gpt2",
    "data.tokenizer_path": None,
    "data.path": None,
    "data.column": "body",
    "data.content": "abc",
    "data.validation_every": 7,
    "data.version": 99,
    "data.seed": None,
    "data.width": None,
    "data.depth": None,
    "data.size": None,
    "data.channels": None,
    "data.classes": None,
    "data.odd": None,
    "augment.crop": None,
    "augment.flip": None,
    "augment.mixup": None,
    "augment.smoothing": None,
    "seed": 1,
    "task": None,
    "guide.kind": None,
    "guide.share": None,
    "guide.steps": None,
    "guide.match": None,
    **dict.fromkeys(f"start.{name}" for name in ("parent", "step", "share", "conversion", "calibration_tokens")),
    "nested": None,
    "schema": None,
    "numerics": 4,
}
"""None: a field with one legal value here (of a teacher: tests/data; of guides, starts, nested ranks: tests/training;
of images: below), or no part of the identity."""


def science() -> Science:
    """A Science that reads all of its fields."""
    return dataclasses.replace(tiny().scheduled("cooldown", 50), moe=MoeConfig("dense", layers="attention"))


def fields(value: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from fields(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def changed(base: Science, path: str, value: Any) -> Science:
    group, _, name = path.rpartition(".")
    if not group:
        return dataclasses.replace(base, **{name: value})
    return dataclasses.replace(base, **{group: dataclasses.replace(getattr(base, group), **{name: value})})


def test_every_field_of_science_is_among_the_cases() -> None:
    assert set(fields(science())) == set(CHANGED)


@pytest.mark.parametrize("path", [path for path, value in CHANGED.items() if value is not None])
def test_every_field_changes_the_identity(path: str) -> None:
    other = changed(science(), path, CHANGED[path])
    assert run_id(other) != run_id(science())


def test_all_changes_lead_to_identities_of_their_own() -> None:
    ids = [run_id(changed(science(), path, value)) for path, value in CHANGED.items() if value is not None]
    assert len(set(ids)) == len(ids)


def test_where_the_data_lie_changes_nothing(tmp_path: Path) -> None:
    ids = set()
    for folder in ("here", "there"):
        path = tmp_path / folder / "a.txt"
        path.parent.mkdir()
        path.write_text("some words\n" * 100)
        ids.add(run_id(dataclasses.replace(tiny(), data=DataRecipe("text", path=str(path)))))
    assert len(ids) == 1
    path.write_text("other words\n" * 100)
    assert run_id(dataclasses.replace(tiny(), data=DataRecipe("text", path=str(path)))) not in ids


@pytest.mark.parametrize(
    "arguments",
    [
        ["optim.lr=1.4e-2"],  # the default, said aloud
        ["optim.lr=0.014"],
        ["structure=btt1"],
        ["structure=monarch"],
        ["structure=einsum", "structure.theta=0.5,0,0.5,0,0.5,0.5,0"],
        ["threads=2", "device=cpu", "log_steps=3", "checkpoint_seconds=5", "compile=true", "tracking=journal"],
        ["recompute=true"],
        ["runs=elsewhere", "data.root=elsewhere", "data.max_epochs=9", "evals_per_decade=7"],
        ["schedule.final=0.3", "schedule.cooldown_fraction=0.5"],  # a constant rate reads neither
    ],
)
def test_what_changes_no_number_changes_no_identity(arguments: list[str]) -> None:
    def identity(*more: str) -> str:
        request = train_request(["scale=small", "structure=btt", "model.d_model=64", "tokens=1e5", *more])
        return run_id(request.template.trunk(request.d_model))

    assert identity(*arguments) == identity()


def test_the_trunk_of_a_cooldown_is_that_of_a_frontier() -> None:
    ids = {
        run_id(sweep_request(["scale=small", "budget=1e13", f"grid={grid}"]).templates[0].trunk(64))
        for grid in ("frontier", "cooldown", "isoflop")
    }
    assert len(ids) == 1


def test_a_constant_rate_has_no_horizon() -> None:
    template = sweep_request(["scale=small", "budget=1e13", "structure=btt"]).templates[0]
    assert run_id(template.run(64, 100)) == run_id(template.run(64, 200))
    decayed = sweep_request(["scale=small", "budget=1e13", "structure=btt", "grid=isoflop"]).templates[0]
    assert run_id(decayed.run(64, 100)) != run_id(decayed.run(64, 200))


# --- stability ----------------------------------------------------------------------------------------------------


def golden_sciences() -> dict[str, Science]:
    today = {"default": Science(), "tiny": tiny(), "tiny cooldown of experts": science()}
    return {name: dataclasses.replace(one, numerics=1) for name, one in today.items()}


def test_identities_are_the_golden_ones() -> None:
    """A change here orphans every stored run: raise SCHEMA and teach ``upgrade`` instead."""
    default = Science()
    before = {"tiny, numerics 2": tiny(numerics=2), "default, numerics 2": dataclasses.replace(default, numerics=2)}
    today = {**golden_sciences(), **before, "default, numerics 3": default, "tiny, numerics 3": tiny()}
    assert {name: run_id(value) for name, value in today.items()} == GOLDEN[f"schema {SCHEMA}"]


def test_numerics_has_risen_for_all_but_float64_and_stored_runs_keep_theirs() -> None:
    for dtype in DTYPES:
        one = tiny(model=dataclasses.replace(tiny().model, dtype=dtype), numerics=0)
        assert one.numerics == 1 if dtype == "float64" else 3
        older = science_from({**to_mapping(one), "numerics": 1})
        assert older.numerics == 1
        assert (run_id(older) == run_id(one)) == (dtype == "float64")


@pytest.mark.parametrize(
    ("moe", "numerics"),
    [
        (MoeConfig(), 3),
        (MoeConfig("btt"), 4),
        (MoeConfig("btt", layers="ffn"), 3),
        (MoeConfig("low_rank", layers="attention"), 4),
        (MoeConfig("ffn", layers="ffn"), 3),
        (MoeConfig("ffn", layers="all"), 4),
    ],
)
def test_numerics_of_bfloat16_has_risen_again_where_attention_is_routed(moe: MoeConfig, numerics: int) -> None:
    model = tiny().model
    assert tiny(model=dataclasses.replace(model, dtype="bfloat16"), moe=moe, numerics=0).numerics == numerics
    assert tiny(model=dataclasses.replace(model, dtype="float32"), moe=moe, numerics=0).numerics == 3


@pytest.mark.parametrize("model", ["mlp", "vit"])
def test_numerics_has_not_risen_for_images_in_float32(model: str) -> None:
    words = ["task=classification", f"model={model}", "data=digits", "tokens=100", "model.d_model=16"]
    assert train_request(words).template.science.numerics == 1


@pytest.mark.parametrize("schema", [2, 3, 4])
@pytest.mark.parametrize("name", golden_sciences())
def test_identities_of_older_schemas_are_the_golden_ones_and_lead_to_those_of_now(name: str, schema: int) -> None:
    """What an older version wrote had these ids; read by this version it is the same Science, under its id of now."""
    science = golden_sciences()[name]
    stored = stored_by(schema, science)
    assert id_of(stored) == GOLDEN[f"schema {schema}"][name]
    assert run_id(science_from(stored)) == run_id(science) == GOLDEN[f"schema {SCHEMA}"][name]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_identities_are_the_same_in_every_process(hash_seed: str) -> None:
    code = "from structlin.config.science import Science; from structlin.config.identity import run_id; "
    found = subprocess.run(
        [sys.executable, "-c", code + "print(run_id(Science()))"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == GOLDEN[f"schema {SCHEMA}"]["default, numerics 3"]


@pytest.mark.parametrize("base", golden_sciences().values(), ids=golden_sciences())
def test_a_stored_science_reads_back(base: Science) -> None:
    again = science_from(json.loads(json.dumps(to_mapping(base))))
    assert canonical_json(again) == canonical_json(base)
    assert (again.model, again.optim, again.structure, again.data) == (
        base.model,
        base.optim,
        base.structure,
        base.data,
    )


@pytest.mark.parametrize("schema", [1, 2, 3, 4])
@pytest.mark.parametrize("structure", ["btt", "dense"])
def test_a_science_of_an_older_schema_is_upgraded(structure: str, schema: int) -> None:
    """Schema 1 knew no experts, 2 one order of axes, 3 no biases, 4 one recipe, no guide, no labelled images."""
    old = stored_by(schema, tiny(structure))
    assert ("biases" in old["model"]) == (schema > 3)
    assert "positions" not in old["model"]
    assert "augment" not in old
    assert ("guide" in old) == (schema > 2)
    assert ("moe" in old) == (schema > 1)
    assert canonical_json(science_from(old)) == canonical_json(tiny(structure))
    assert run_id(science_from(old)) == run_id(tiny(structure)) != id_of(old)


@pytest.mark.parametrize("change", [{"output_order": "efd"}, {"contraction": "first"}])
def test_a_dense_layer_has_neither_axes_nor_an_order(change: dict[str, str]) -> None:
    ids = {
        name: [
            run_id(dataclasses.replace(tiny(name), structure=dataclasses.replace(tiny(name).structure, **more)))
            for more in ({}, change)
        ]
        for name in ("dense", "btt")
    }
    assert ids["dense"][0] == ids["dense"][1]
    assert ids["btt"][0] != ids["btt"][1]


IMAGES = Science(
    model=MlpConfig(), data=DataRecipe("images", content="abc", classes=3), task="classification",
    optim=OptimConfig(batch_tokens=64),
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.size", 32),
        ("data.channels", 1),
        ("data.classes", 4),
        ("data.odd", "convert"),
        ("data.validation_every", 7),
        ("augment.crop", "resized"),
        ("augment.flip", True),
        ("augment.mixup", 0.8),
        ("augment.smoothing", 0.1),
        ("model.input_rate", 0.1),
        ("model.outer_norm", "none"),
        ("model", VitConfig(patch=16)),
    ],
)
def test_every_field_of_images_changes_the_identity(path: str, value: object) -> None:
    assert run_id(changed(IMAGES, path, value)) != run_id(IMAGES)
    again = science_from(json.loads(json.dumps(to_mapping(changed(IMAGES, path, value)))))
    assert run_id(again) == run_id(changed(IMAGES, path, value))


def test_an_older_student_had_an_input_of_the_usual_rate() -> None:
    student = Science(model=MlpConfig(), data=DataRecipe("teacher"), task="regression")
    old = stored_by(4, student)
    assert "input_rate" not in old["model"]
    assert run_id(science_from(old)) == run_id(student)


def test_only_labelled_images_are_augmented() -> None:
    with pytest.raises(UserError, match="task = language has no labelled images to augment"):
        tiny(augment=Augmentation(flip=True))


def test_an_order_of_contraction_is_a_variant_and_an_order_of_axes_a_structure() -> None:
    structures = [StructureConfig(tiny().structure.theta, **more) for more in ({}, {"contraction": "first"})]
    structures.append(StructureConfig(tiny().structure.theta, output_order="efd"))
    assert [structure.name for structure in structures] == ["btt", "btt", "btt-efd"]
    variants = [dataclasses.replace(tiny(), structure=structure).variant for structure in structures]
    assert variants == ["btt", "btt+first-order", "btt-efd"]


def test_biases_belong_to_the_identity_and_experts_have_none() -> None:
    plain = tiny()
    biased = dataclasses.replace(plain, model=dataclasses.replace(plain.model, biases=("*norm", "head")))
    assert run_id(biased) != run_id(plain)
    with pytest.raises(UserError, match=r"experts have no biases; use model.biases=\[\], or moe=none"):
        dataclasses.replace(biased, moe=MoeConfig("btt"))


def test_a_cap_that_nothing_reads_is_no_part_of_the_identity() -> None:
    """Without experts, or without a cap, there is nothing to share."""
    shared = dataclasses.replace(tiny().model, weight_norm_experts="shared")
    assert run_id(dataclasses.replace(tiny(), model=shared)) == run_id(tiny())
    routed = tiny(moe=MoeConfig("btt"))
    assert run_id(dataclasses.replace(routed, model=shared)) == run_id(routed)
    capped = dataclasses.replace(shared, weight_norm="fixed")
    with_cap = dataclasses.replace(routed, model=capped)
    assert with_cap.variant == "moe-btt8+fixed-norm+shared-cap"
    own = dataclasses.replace(capped, weight_norm_experts="own")
    assert run_id(with_cap) != run_id(dataclasses.replace(routed, model=own))


def test_a_structure_that_experts_replace_is_no_part_of_the_identity() -> None:
    routed = [dataclasses.replace(tiny(name), moe=MoeConfig("btt")) for name in ("btt", "low_rank", "dense")]
    assert len({run_id(science) for science in routed}) == 1
    partly = [dataclasses.replace(tiny(name), moe=MoeConfig("btt", layers="ffn")) for name in ("btt", "low_rank")]
    assert len({run_id(science) for science in partly}) == 2
    assert routed[0].variant == "moe-btt8"
    assert [science.variant for science in partly] == ["btt+moe-btt8-ffn", "low_rank+moe-btt8-ffn"]


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, None, "1", 1.5])
def test_a_schema_that_this_version_cannot_read_is_refused(schema: Any) -> None:
    with pytest.raises(UserError, match=r"schema.*update structlin"):
        upgrade({**to_mapping(tiny()), "schema": schema})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"modle": {}}, "did you mean 'model'"),
        ({"model": {"name": "gpt2", "widht": 3}}, "config.model.widht"),
        ({"model": 3}, "should be a group of keys"),
        ({"seed": "x"}, "config.seed = 'x' should be a whole number"),
        ({"seed": True}, "should be a whole number"),
        ({"optim": {"lr": "fast"}}, "should be a number"),
        ({"structure": {"theta": "(1|1)"}}, "2 numbers"),
    ],
)
def test_a_stored_config_that_does_not_fit_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as refused:
        science_from({**to_mapping(tiny()), **change})
    assert named in str(refused.value)


def test_theta_is_stored_in_one_form() -> None:
    assert StructureConfig("0.5,0,0.5,0,0.5,0.5,0").theta == "(1/2|0|1/2|0|1/2|1/2|0)"


@pytest.mark.parametrize(("kind", "horizon"), [("constant", 10), ("cosine", None), ("cooldown", None)])
def test_only_a_decayed_schedule_has_a_horizon(kind: str, horizon: int | None) -> None:
    with pytest.raises(UserError, match="a constant rate has no horizon"):
        ScheduleConfig(kind=kind, horizon_steps=horizon)


def test_nothing_of_a_science_can_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OptimConfig().lr = 1.0  # type: ignore[misc]
