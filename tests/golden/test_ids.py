"""The runs that are kept, and those that studies plan, are found under their ids, whatever the schema has become."""

import json
import math
from copy import deepcopy
from pathlib import Path

import pytest

from analysis.kept import load as kept_study
from analysis.missing import command_lines
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.science import SCHEMA, Science
from structlin.runs.store import Store
from tests.golden import ids as golden
from tests.golden.tables import Config, Run, id_by_text, pack, text, unpack

KEPT = {name: unpack(table) for name, table in golden.read(golden.KEPT_FILE).items()}
STUDIES = golden.read(golden.STUDY_FILE)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folders as they were when the kept runs were made: named by their ids of then, with their configs of then."""
    root = tmp_path_factory.mktemp("kept-runs")
    for runs in KEPT.values():
        for name, _, config in runs:
            (root / name).mkdir()
            (root / name / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize("name", KEPT)
def test_the_id_of_a_kept_run_is_that_of_its_stored_text(name: str) -> None:
    """So neither can be edited without the other."""
    assert [id_by_text(config) for _, _, config in KEPT[name]] == [identity for identity, _, _ in KEPT[name]]


@pytest.mark.parametrize("name", KEPT)
def test_a_kept_run_is_found_by_its_config(name: str, store: Path) -> None:
    root = Store(store)
    lost = [one for one, _, config in KEPT[name] if root.folder(science_from(config)).path != store / one]
    assert not lost, f"{len(lost)} runs, such as {lost[0]}, are not found in their folders; {golden.REMEDY}"


@pytest.mark.parametrize("name", KEPT)
def test_a_config_of_this_schema_has_the_same_id_and_text(name: str) -> None:
    for identity, _, config in KEPT[name]:
        if config["schema"] == SCHEMA:
            assert run_id(science_from(config)) == identity
            assert to_mapping(science_from(config)) == config


def test_every_kept_run_stands_in_the_tables() -> None:
    known = {identity: config for runs in KEPT.values() for identity, _, config in runs}
    for path in sorted(golden.KEPT.glob("*.parquet")):
        for identity, _, config in golden.kept_runs(path.stem):
            assert known.get(identity) == config, f"{path.stem} {identity}: `python -m tests.golden.ids` adds new runs"


# ---- studies --------------------------------------------------------------------------------------------------------


def test_every_study_is_pinned() -> None:
    assert list(STUDIES) == golden.study_sizes(), "`python -m tests.golden.ids` writes studies that are new"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_plans_the_same_runs(name: str, store: Path) -> None:
    """And those of a study that is kept, with the settings of today, are found where they lie."""
    lines, plan = command_lines(*name.split()), golden.planned(name)
    assert lines == STUDIES[name]["lines"], (
        "a study's command lines changed: `python -m tests.golden.ids` pins its runs"
    )
    wrong = golden.differences(STUDIES[name], plan)
    assert not wrong, f"{wrong}; {golden.REMEDY}"
    study, size = name.split()
    kept = kept_study(study)
    if study == "demo":  # trained anew by everybody
        return
    if kept is None:  # not trained yet
        return
    if size == "small" and not kept.origin["trained_otherwise"]:
        sciences = [one for science, _ in plan.values() for one in with_parents(science)]
        folders = {Store(store).folder(science).path.name for science in sciences}
        # What older numerics made stands under its own id, and in a figure's place of today's.
        assert folders == {run_id(science_from(config).of_now()) for _, _, config in golden.kept_runs(study)}


def with_parents(science: Science) -> list[Science]:
    parent = science.start.parent
    return [science, *(with_parents(parent) if parent is not None else [])]


@pytest.mark.parametrize("name", STUDIES)
def test_the_id_of_a_planned_run_is_that_of_its_stored_text(name: str) -> None:
    for identity, _, config in unpack(STUDIES[name]):
        assert id_by_text(config) == identity


# ---- the checks themselves ------------------------------------------------------------------------------------------


def runs() -> list[Run]:
    return deepcopy(KEPT["learning_rates 1"][:5])


def test_tables_give_back_what_was_packed() -> None:
    some = runs()
    # Some start from others, some from none.
    for place, (_, _, config) in enumerate(some):
        config["start"] = {"parent": runs()[place][2] if place % 2 else None, "step": 3}
    assert unpack(json.loads(text({"some": pack(some)}))["some"]) == some


def test_another_value_is_another_id() -> None:
    _, _, config = runs()[0]
    before = id_by_text(config)
    config["optim"]["lr"] = math.nextafter(config["optim"]["lr"], 1.0)
    assert id_by_text(config) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda some: some.pop(), "0 runs lost, 1 new, 0 with other steps"),
        (lambda some: some[0][1].append(7), "0 runs lost, 0 new, 1 with other steps"),
        (lambda some: some[0][2].update(seed=77), "1 runs lost, 1 new, 0 with other steps"),
        (lambda some: None, ""),
    ],
)
def test_a_plan_that_differs_is_seen(change, said: str) -> None:
    plan = {run_id(science_from(config)): (science_from(config), steps) for _, steps, config in runs()}
    pinned = runs()
    change(pinned)
    assert golden.differences(pack(pinned), plan).startswith(said)
    assert bool(golden.differences(pack(pinned), plan)) == bool(said)


def test_the_writer_adds_kept_runs_and_takes_none_away() -> None:
    tables = golden.read(golden.KEPT_FILE)
    whole = len(tables["xi 1"]["rows"])
    gone: Config = tables["xi 1"]["rows"].pop()
    added = golden.add_kept(tables)
    assert len(added["xi 1"]["rows"]) == whole - 1
    assert [row[0] for row in added["xi 2"]["rows"]] == [gone[0]]
    assert golden.add_kept(added) == added
    foreign = {"fig0 1": {"base": {}, "fields": [], "rows": [["0" * 16, [1]]]}}
    assert golden.add_kept({**added, **foreign})["fig0 1"] == foreign["fig0 1"]


def test_the_writer_refuses_other_runs_for_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "study_sizes", lambda: ["fig10 small"])
    tables = {"fig10 small": deepcopy(STUDIES["fig10 small"])}
    assert golden.write_studies(tables) == tables
    tables["fig10 small"]["rows"].pop()
    with pytest.raises(SystemExit, match="same command lines and other runs"):
        golden.write_studies(tables)
    tables["fig10 small"]["lines"] = ["another"]
    anew = golden.write_studies(tables)["fig10 small"]
    assert anew["lines"] == STUDIES["fig10 small"]["lines"]
    assert len(anew["rows"]) == len(STUDIES["fig10 small"]["rows"])
    assert golden.differences(anew, golden.planned("fig10 small")) == ""


def test_the_writer_takes_runs_whose_numerics_has_risen_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "study_sizes", lambda: ["fig10 paper"])
    table = STUDIES["fig10 paper"]
    older = [(name, steps, {**config, "numerics": 1}) for name, steps, config in unpack(table)]
    risen = golden.write_studies({"fig10 paper": {"lines": table["lines"], **pack(older)}})["fig10 paper"]
    assert golden.differences(risen, golden.planned("fig10 paper")) == ""
    newer = [(name, steps, {**config, "numerics": 9}) for name, steps, config in unpack(table)]
    with pytest.raises(SystemExit, match="other runs"):
        golden.write_studies({"fig10 paper": {"lines": table["lines"], **pack(newer)}})
