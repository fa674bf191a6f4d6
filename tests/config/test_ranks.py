"""Ranks of single linears: the content of a file, whatever its path and form; what is none is one line."""

import dataclasses
import json
from pathlib import Path

import pytest

from structlin.anatomy.kinds import anatomy, rounding_of
from structlin.config.doors import sweep_request, train_request
from structlin.config.identity import canonical_json, run_id, science_from, to_mapping
from structlin.config.moe import MoeConfig
from structlin.config.ranks import canonical, label, ranks_of
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.models.build import build_model
from tests.tiny import tiny

OWN = {"blocks.0.ffn.up": 3, "blocks.0.ffn.down": None, "head": 2}


def with_ranks(ranks: str, structure: str = "btt", **changes: object) -> Science:
    base = tiny(structure, **changes)
    return dataclasses.replace(base, structure=dataclasses.replace(base.structure, ranks=ranks))


def written(folder: Path, text: str, name: str = "ranks.json") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return f"@{folder / name}"


def test_the_content_is_the_identity_and_neither_path_nor_form(tmp_path: Path) -> None:
    as_json = json.dumps(OWN, indent=3)
    as_yaml = "head: 2.0\nblocks.0.ffn.down:\nblocks.0.ffn.up: 3\n"
    values = [written(tmp_path / "a", as_json), written(tmp_path / "b c", as_yaml, "ranks.yaml"), json.dumps(OWN)]
    sciences = [with_ranks(value) for value in values]
    assert len({run_id(one) for one in sciences}) == 1
    assert run_id(sciences[0]) != run_id(tiny())
    assert ranks_of(sciences[0].structure.ranks) == OWN
    (tmp_path / "a" / "ranks.json").unlink()
    again = science_from(json.loads(json.dumps(to_mapping(sciences[0]))))
    assert canonical_json(again) == canonical_json(sciences[0])


def test_such_linears_have_the_rank_and_all_others_theta() -> None:
    science = with_ranks(json.dumps(OWN))
    plans = {shape.name: shape.plan for shape in anatomy(science).linears}
    before = {shape.name: shape.plan for shape in anatomy(tiny()).linears}
    assert plans["blocks.0.ffn.down"].dense
    for name, rank in (("blocks.0.ffn.up", 3), ("head", 2)):
        sizes = plans[name].sizes
        assert (sizes.a, sizes.e, sizes.r) == (sizes.d_in, sizes.d_out, rank)
        assert plans[name].params == rank * (sizes.d_in + sizes.d_out)
    assert {name: plan for name, plan in plans.items() if name not in OWN} == {
        name: plan for name, plan in before.items() if name not in OWN
    }
    model = build_model(science)
    assert {name: tuple(one.shape) for name, one in model.named_parameters() if name.startswith("head")} == {
        "head.A": (1, 2, 1, 1, 16),
        "head.B": (1, 96, 1, 1, 2),
    }
    assert "16 x 64" not in rounding_of(science)


def test_structures_with_other_ranks_have_names_of_their_own() -> None:
    one, other = (with_ranks(json.dumps({"head": rank})) for rank in (2, 3))
    assert one.structure.name == f"btt@{label(one.structure.ranks)}" != other.structure.name
    assert one.variant != other.variant
    dense = with_ranks('{"head": 2}', "dense")
    assert dense.variant == label(dense.structure.ranks) != "dense"
    firsts = [dataclasses.replace(dense.structure, contraction=order) for order in ("cheapest", "first")]
    assert firsts[0] != firsts[1]


def test_by_the_command_line_and_beside_dense(tmp_path: Path) -> None:
    at = written(tmp_path / "with blank", json.dumps(OWN))
    words = ["scale=small", "model.d_model=64", "tokens=1e5", f"structure.ranks={at}"]
    found = train_request(["structure=low_rank", *words]).template.science.structure.ranks
    assert ranks_of(found) == OWN
    request = sweep_request(["structure=dense,low_rank", "scale=small", "budget=1e12", f"structure.ranks={at}"])
    assert [template.science.structure.ranks for template in request.templates] == ["none", found]


BAD = {
    "8": "8 names no linear",
    "": "names no linear",
    "{": "is no JSON and no YAML",
    "{}": "is empty",
    "[1, 2]": "names no linear",
    '{"head": 0}': "head = 0 is no rank",
    '{"head": 1.5}': "head = 1.5 is no rank",
    '{"head": true}': "head = True is no rank",
    '{"head": "d/4"}': "head = 'd/4' is no rank",
    '{"head": 1e12}': "is no rank",
    "{3: 4}": "3 is no name of a linear",
    "@nowhere.json": "structure.ranks=@nowhere.json cannot be read: No such file",
    "@.": "structure.ranks=@. cannot be read: Is a directory",
}


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_such_file_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=BAD[text]) as caught:
        canonical(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ranks").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        canonical(f"@{tmp_path / 'ranks'}")


def test_ranks_that_do_not_fit_the_model_are_refused() -> None:
    with pytest.raises(UserError, match=r"the model has no linear blocks.7.ffn.up; did you mean 'blocks.0.ffn.up'"):
        anatomy(with_ranks('{"blocks.7.ffn.up": 2}'))
    with pytest.raises(UserError, match=r"blocks.0.ffn.up = 17, but a layer of 16 x 64 has rank 16 at most"):
        anatomy(with_ranks('{"blocks.0.ffn.up": 17}'))
    with pytest.raises(UserError, match="moe = ffn makes them experts"):
        anatomy(with_ranks('{"head": 2}', moe=MoeConfig("ffn", 4, 2)))
    with pytest.raises(UserError, match="moe = btt makes them experts"):
        train_request(["moe=btt", "scale=small", "model.d_model=64", "tokens=1e5", 'structure.ranks="@/dev/null"'])
    with pytest.raises(UserError, match=r"structure.head_layout = nddn lays out"):
        StructureConfig(tiny().structure.theta, head_layout="nddn", ranks='{"head": 2}')
