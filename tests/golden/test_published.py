"""A study or scale named after the paper composes what was published, or the one list of deviations says why not."""

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.missing import cells
from structlin.config.compose import CONFIG_DIR
from structlin.config.doors import sweep_request
from structlin.config.identity import to_mapping
from structlin.config.science import Science
from structlin.config.study import changes, studies
from structlin.planning.grid import Cell, plan_sweep
from structlin.structure import Theta, name_of, theta_of
from tests.golden import published, published_ffn
from tests.golden.tables import flat

FOLDER = CONFIG_DIR / "study"
LISTS = yaml.safe_load((CONFIG_DIR / "deviations.yaml").read_text())
DEVIATIONS: list[dict[str, Any]] = LISTS["deviations"]
SMALL_SCALES = {"small": ("language", "paper"), "pixels_small": ("pixels", "pixels"),
                "regression_small": ("regression", "regression"),
                "structured_ffn_small": ("language", "structured_ffn")}  # fmt: skip
SCALE_OF = {"language": "small", "pixels": "pixels_small", "regression": "regression_small"}
SCALE_OF |= dict.fromkeys(published_ffn.STUDIES, "structured_ffn_small")
DERIVED = {
    "schema",
    "numerics",
    "schedule.horizon_steps",
    "schedule.cooldown_fraction",
    "structure.theta",
    "start.step",
}
"""What says nothing of its own: versions, what steps and designs make of a schedule, and theta, which has a name."""
PARENT = "start.parent."
"""A parent's keys are those of its child: both have one model and one recipe."""


@cache
def planned(study: str, size: str) -> tuple[Cell, ...]:
    """All cells of a study, without any data."""
    words = [f"study={study}", f"study.size={size}", "tracking=journal", "dry_run=true"]
    return plan_sweep(sweep_request(words)).cells


def values(science: Science) -> dict[str, Any]:
    """The composed config by dotted names."""
    return dict(flat(to_mapping(science)))


def deviates(where: str, field: str) -> list[dict[str, Any]]:
    return [one for one in DEVIATIONS if one.get("field") == field and where in one["where"]]


def wrong(table: dict[str, Any], found: dict[str, Any], where: str) -> dict[str, Any]:
    """Field -> (found, published) where they differ and no deviation says so."""
    differing = {name: (found[name], value) for name, value in table.items() if found[name] != value}
    return {
        name: pair
        for name, pair in differing.items()
        if not any(one["published"] == pair[1] and one["here"] == pair[0] for one in deviates(where, name))
    }


def key_of(cell: Cell) -> tuple[Any, ...]:
    science = cell.science
    name = name_of(Theta.parse(science.structure.theta))
    moe = science.moe
    model = science.model.name if science.task == "classification" else ""
    return (name, moe.kind, moe.num_experts, science.structure.head_layout, model, science.model.num_layers,
            science.model.d_model, extra(science))  # fmt: skip


def extra(science: Science) -> str:
    """Guide, beginning, grouped keys and width of attention of StructuredFFN's recipe, in words; empty without."""
    words = [f"{science.guide.kind} guide"] if science.guide.kind != "none" else []
    start = science.start
    if start.parent is not None:
        words.append(f"from {name_of(Theta.parse(start.parent.structure.theta))} {start.share} {start.conversion}")
    if science.optim.rate_rule == "plain":
        given = {"kv": science.model.kv_heads, "attention": science.model.attention_width}
        words += [f"{word}{value}" for word, value in given.items() if value is not None]
    return " ".join(words)


def keys_of(kind: published.Kind) -> list[tuple[Any, ...]]:
    names = [name_of(theta_by(words)) for words in kind.structures]
    product = itertools.product(
        names, [kind.moe], kind.experts, kind.layouts, [kind.model], kind.layers, kind.widths, kind.extras
    )
    return list(product)


def theta_by(words: str) -> Theta:
    """Of a name and its arguments, such as monarch blocks=4."""
    name, *arguments = words.split()
    given = dict(word.split("=", 1) for word in arguments)
    whole = {key: int(value) if value.isdigit() else value for key, value in given.items()}
    return theta_of(name, rounding="paper", arguments=whole)


def test_the_table_has_every_study() -> None:
    assert set(published.STUDIES) == set(studies(FOLDER)) - {"demo", "balance", "fig10_learned"}


@pytest.mark.parametrize("study", published.STUDIES)
def test_a_study_holds_the_published_cells_and_no_others(study: str) -> None:
    wanted = {key for kind in published.STUDIES[study][1] for key in keys_of(kind)}
    assert {key_of(cell) for cell in planned(study, "paper")} == wanted
    for kind in published.STUDIES[study][1]:
        if kind.lists == "whole":
            assert any(study in one["where"] and "field" not in one for one in DEVIATIONS)
        elif kind.lists:
            assert deviates(study, kind.lists), f"{kind} is not published, and no deviation says so"


@pytest.mark.parametrize("study", published.STUDIES)
def test_every_cell_of_a_study_is_the_published_one(study: str) -> None:
    common, kinds = published.STUDIES[study]
    by_key = {key: kind for kind in kinds for key in keys_of(kind)}
    for cell in planned(study, "paper"):
        kind = by_key[key_of(cell)]
        table = {**common, **dict(kind.of_its_own)}
        # The released code takes A first; a dense layer has no order.
        dense = cell.science.structure.name == "dense"
        table.setdefault("structure.contraction", "cheapest" if dense else "first")
        if cell.science.structure_is_idle:
            del table["structure.rounding"]  # experts have replaced the structure everywhere
        assert not wrong(table, values(cell.science), study), key_of(cell)
        if kind.steps is None:
            assert deviates(study, "steps")
        else:
            assert cell.step == kind.steps, key_of(cell)


@pytest.mark.parametrize("scale", published.SCALES)
def test_a_scale_is_the_published_one(scale: str) -> None:
    (task,) = [task for task, of in SMALL_SCALES.values() if of == scale]
    found = values(scale_science(task, scale))
    table = {name: value for name, value in published.SCALES[scale].items() if not name.startswith("schedule.kind")}
    # The schedule of a scale is the grid's; a scale alone rounds exactly, which stands in the list.
    del table["structure.rounding"]
    table.pop("schedule.final", None)
    assert not wrong(table, found, scale)


def scale_science(task: str, scale: str, *more: str) -> Science:
    words = [f"task={task}", f"scale={scale}", "structure=btt", "budget=1e15", "dry_run=true", *more]
    return sweep_request(words).templates[0].science.at_width(64)


def test_every_deviation_of_a_field_is_one() -> None:
    """An entry whose value was mended since, or that names no study, must go."""
    for one in DEVIATIONS:
        assert (
            {"where", "published", "here", "reason"} <= one.keys() <= {"where", "field", "published", "here", "reason"}
        )
        if "field" not in one:
            continue
        for study in one["where"]:
            common, kinds = published.STUDIES[study]
            if one["field"] in common:
                found = {str(values(cell.science)[one["field"]]) for cell in planned(study, "paper")}
                assert common[one["field"]] == one["published"] != one["here"]
                assert found == {one["here"]}
            elif one["field"] == "steps":
                assert any(kind.steps is None for kind in kinds)
            else:
                assert one["field"] in {kind.lists for kind in kinds}


# ---- the small sizes -----------------------------------------------------------------------------------------------


def differing(small: dict[str, set[Any]], large: dict[str, set[Any]]) -> set[str]:
    """Keys whose values differ; those of data are one."""
    names = {name.removeprefix(PARENT) for name in {*small, *large} if small.get(name) != large.get(name)} - DERIVED
    return {"data" if name.startswith("data.") else name for name in names}


def gathered(study: str, size: str) -> dict[str, set[Any]]:
    """Every value of every key over the cells of a study."""
    found: dict[str, set[Any]] = {}
    for cell in planned(study, size):
        for name, value in values(cell.science).items():
            found.setdefault(name, set()).add(str(value))
        found.setdefault("structures", set()).add(name_of(Theta.parse(cell.science.structure.theta)))
        found.setdefault("tokens", set()).add(cell.tokens)
    return found


@pytest.mark.parametrize("scale", SMALL_SCALES)
def test_a_small_scale_changes_what_it_says_and_nothing_else(scale: str) -> None:
    task, large = SMALL_SCALES[scale]
    more = ["moe=btt"] if large == "paper" else []
    pair = [{name: {str(value)} for name, value in values(scale_science(task, name_of_scale, *more)).items()}
            for name_of_scale in (scale, large)]  # fmt: skip
    assert differing(*pair) == set(LISTS["scales"][scale])


@pytest.mark.parametrize("study", published.STUDIES)
def test_a_small_study_changes_what_it_says_and_nothing_else(study: str) -> None:
    task = planned(study, "small")[0].science.task
    own, of_scale = changes(FOLDER, study, "small"), LISTS["scales"].get(SCALE_OF.get(study, SCALE_OF.get(task)), {})
    found = differing(gathered(study, "small"), gathered(study, "paper"))
    assert found <= {*own, *of_scale}, "a change without a reason"
    assert set(own) - set(of_scale) <= found, "a reason without a change"


KEPT_AS_PUBLISHED = (
    "model.name", "model.ffn_expansion", "model.structured", "model.weight_norm", "model.weight_norm_experts",
    "model.biases", "model.zero_start", "model.outer_norm", "model.base_ffn_expansion", "optim.name", "optim.beta1",
    "optim.beta2", "optim.eps", "optim.weight_decay", "optim.clip", "optim.rate_rule", "moe.router_start", "moe.top_k",
    "moe.kind",
)  # fmt: skip


@pytest.mark.parametrize("study", published.STUDIES)
def test_model_cap_biases_starts_and_optimizer_stay_in_the_small_sizes(study: str) -> None:
    small, large = gathered(study, "small"), gathered(study, "paper")
    for name in KEPT_AS_PUBLISHED:
        assert small.get(name) == large.get(name), name


def test_three_and_six_layers_are_one_variant() -> None:
    by_structure: dict[str, set[str]] = {}
    for cell in planned("fig4", "paper"):
        by_structure.setdefault(cell.science.structure.theta, set()).add(cell.science.variant)
    assert len(by_structure) == 24
    assert all(len(variants) == 1 for variants in by_structure.values())


# ---- what the docs and the bill say ---------------------------------------------------------------------------------


def test_the_docs_show_the_list() -> None:
    text = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    for row in rows():
        assert row in text, (
            "docs/figures.md lacks a deviation: `python -m tests.golden.test_published` prints the table"
        )


def rows() -> list[str]:
    """The list as rows of a table."""
    return [
        f"| {', '.join(one['where'])} | {one['published']} | {one['here']} | {one['reason']} |" for one in DEVIATIONS
    ]


def test_analysis_plans_the_same_cells() -> None:
    assert cells("fig4", "paper") == planned("fig4", "paper")


if __name__ == "__main__":
    print("\n".join(["| where | published | here | why |", "|---|---|---|---|", *rows()]))
