"""Ranks of every linear: one threshold, as many parameters as wanted, the least error by Lagrange's rule."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.command.convert import main
from structlin.command.trained import loaded
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig
from structlin.config.ranks import canonical, ranks_of
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.convert import convert_model
from structlin.convert.aware import root
from structlin.convert.model import matrix
from structlin.convert.moments import moments
from structlin.convert.ranks import Spectrum, params_of, ranks_by, spectrum, squared_error_of, uniform
from structlin.errors import UserError
from structlin.models.build import build_model
from structlin.runs.store import RunFolder
from structlin.tasks.catalogue import open_task
from tests.nn.test_linear import randn
from tests.tiny import tiny, train

SHARES = (0.2, 0.35, 0.5, 0.8)


def planted(seed: int = 0) -> dict[str, Spectrum]:
    """Linears of several shapes and scales."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for place, (d_in, d_out) in enumerate([(12, 12), (12, 30), (30, 12), (20, 8)]):
        values = torch.rand(min(d_in, d_out), generator=generator, dtype=torch.float64).sort(descending=True).values
        found[f"linear {place}"] = Spectrum(d_in, d_out, values * 2.0**place)
    return found


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("rule", ["lagrange", "welore"])
@pytest.mark.parametrize("seed", range(3))
def test_as_many_parameters_as_one_threshold_allows(rule: str, share: float, seed: int) -> None:
    spectra = planted(seed)
    whole = sum(one.dense for one in spectra.values())
    ranks = ranks_by(rule, spectra, share)
    assert params_of(spectra, ranks) <= share * whole
    # The next value of any linear would be too much: nothing that one threshold could still take is left out.
    assert params_of(spectra, ranks) > share * whole - max(one.triple + one.dense for one in spectra.values())
    for name, rank in ranks.items():
        one = spectra[name]
        assert rank is None or rank < one.dense / one.triple
    more = ranks_by(rule, spectra, min(1.0, share + 0.1))
    assert params_of(spectra, more) >= params_of(spectra, ranks)


def test_all_parameters_leave_every_linear_dense() -> None:
    for rule in ("lagrange", "welore"):
        assert set(ranks_by(rule, planted(), 1.0).values()) == {None}


@pytest.mark.parametrize("seed", range(4))
def test_no_choice_of_triples_of_as_many_parameters_errs_less_than_lagranges(seed: int) -> None:
    """Against all choices of ranks of three small linears, wherever none of them is dense: there the rule is exact."""
    generator = torch.Generator().manual_seed(seed)
    spectra = {
        name: Spectrum(20, size, torch.rand(5, generator=generator, dtype=torch.float64).sort(descending=True).values)
        for name, size in (("a", 20), ("b", 20), ("c", 20))
    }
    for share in (0.3, 0.45):
        ranks = ranks_by("lagrange", spectra, share)
        spent, error = params_of(spectra, ranks), squared_error_of(spectra, ranks)
        others = (dict(zip("abc", choice, strict=True)) for choice in itertools.product(range(1, 6), repeat=3))
        assert error <= 1e-12 + min(
            squared_error_of(spectra, other) for other in others if params_of(spectra, other) <= spent
        )


def test_welore_scales_each_matrix_and_lagrange_weighs_parameters() -> None:
    """Ten times the weights are the same to the one and a hundred times as much to the other."""
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    spectra = {"plain": Spectrum(30, 30, values), "ten times": Spectrum(30, 30, 10 * values)}
    by_welore, by_lagrange = (ranks_by(rule, spectra, 0.2) for rule in ("welore", "lagrange"))
    assert by_welore["plain"] == by_welore["ten times"] == 3
    assert by_lagrange["plain"] == 1
    assert by_lagrange["ten times"] == 5
    # (s - min) / (max - min) above .4: by hand.
    assert int(((values - 0.1) / 3.9 > 0.4).sum()) == 3


def test_a_spectrum_is_that_of_the_matrix_or_of_its_outputs() -> None:
    W, X = randn(12, 20), randn(20, 300, seed=1)
    torch.testing.assert_close(spectrum(W).values, torch.linalg.svdvals(W))
    C = X @ X.T / 300
    torch.testing.assert_close(spectrum(W, root(C)).values, torch.linalg.svdvals(W @ X) / 300**0.5)
    assert (spectrum(W).d_in, spectrum(W).d_out) == (20, 12)


@pytest.mark.parametrize(
    ("rule", "share", "said"),
    [("best", 0.5, "rule=best is unknown"), ("lagrange", 0.01, "rank 1 everywhere takes"), ("welore", 1.5, "a share")],
)
def test_what_cannot_be_is_one_line(rule: str, share: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ranks_by(rule, planted(), share)


# --- a trained run ----------------------------------------------------------------------------------------------------

SCIENCE = tiny(
    "dense",
    model=Gpt2Config(d_model=48, num_layers=2, d_head=16, context=32, base_width=48, dtype="float32"),
    optim=OptimConfig(batch_tokens=512, lr=1e-2),
    evaluation=EvaluationConfig(tokens=8192),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> RunFolder:
    state, folder = train(SCIENCE, (400,), tmp_path_factory.mktemp("ranks"), data_root)
    assert state == "done"
    return folder


def with_ranks(ranks: dict[str, int | None]) -> Science:
    return replace(SCIENCE, structure=StructureConfig(SCIENCE.structure.theta, ranks=json.dumps(ranks)))


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_lagranges_ranks_beat_uniform_ones_at_equal_parameters_on_a_trained_run(
    run: RunFolder, data_root: Path, share: float
) -> None:
    """By the summed squared error of the outputs and by the loss of the compressed model."""
    model, _ = loaded(run, SCIENCE, "newest")
    task, cpu = open_task(SCIENCE, data_root), torch.device("cpu")
    batches = [task.train_batch(step)[0] for step in range(8)]
    layers = [name for name, one in model.named_modules() if hasattr(one, "plan") and name.startswith("blocks")]
    assert len(layers) == 12
    met = moments(model, batches, layers)
    spectra = {name: spectrum(matrix(model.get_submodule(name)), root(met[name])) for name in layers}
    even = uniform(spectra, share)
    spent = params_of(spectra, even)
    losses, errors = {}, {}
    for name, ranks in (
        ("uniform", even),
        ("lagrange", ranks_by("lagrange", spectra, spent / sum(one.dense for one in spectra.values()))),
    ):
        assert params_of(spectra, ranks) <= spent
        found = convert_model(model, SCIENCE, with_ranks(ranks), batches)
        child = build_model(with_ranks(ranks))
        child.load_state_dict(found.weights)
        losses[name] = task.validation_loss(child, cpu)
        errors[name] = squared_error_of(spectra, ranks)
    whole = task.validation_loss(model, cpu)
    assert errors["lagrange"] < 0.5 * errors["uniform"]
    assert losses["lagrange"] - whole < 0.5 * (losses["uniform"] - whole)


def test_the_command_prints_what_structure_ranks_takes(
    run: RunFolder, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = {}
    for rule, more in (("lagrange", []), ("welore", []), ("lagrange", ["calibrate=0"])):
        out = tmp_path / f"{rule}.json"
        words = [f"runs={run.path.parent}", f"run={run.run_id[:6]}", "params=0.5", f"rule={rule}", f"out={out}"]
        assert main(["ranks", *words, f"data.root={data_root}", *more]) == 0
        text, said = capsys.readouterr()
        assert out.read_text() == text
        assert f"{rule} at step 400:" in said
        assert ("by the matrices alone" in said) == bool(more)
        science = replace(SCIENCE, structure=StructureConfig(SCIENCE.structure.theta, ranks=f"@{out}"))
        assert ranks_of(science.structure.ranks) == json.loads(text)
        dense = sum(one.numel() for name, one in build_model(SCIENCE).named_parameters() if "weight" in name)
        own = sum(one.numel() for name, one in build_model(science).named_parameters() if name[-1] in "ABt")
        head = 48 * 96
        assert own - head == pytest.approx(0.5 * (dense - head), rel=0.01)
        printed[rule, *more] = canonical(text)
    assert len(set(printed.values())) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "run=ID says which run"),
        (["run=zzz"], "no such run"),
        (["params=0"], "params=0: write a share"),
        (["params=x"], "params=x: write a share"),
        (["rule=best"], "rule=best is unknown; .*lagrange"),
        (["calibrate=-1"], "calibrate=-1: write a whole number"),
        (["params=0.001"], "rank 1 everywhere takes"),
        (["calibrate=512", "data.root=nowhere"], "not prepared in nowhere"),
        (["step=7"], "keeps no checkpoint of step 7"),
        (["colour=red"], "'colour=red' is unknown"),
    ],
)
def test_wrong_words_are_one_line(run: RunFolder, words: list[str], said: str) -> None:
    given = [f"runs={run.path.parent}", *([f"run={run.run_id}"] if words and "run=" not in words[0] else []), *words]
    with pytest.raises(UserError, match=said) as caught:
        main(["ranks", *given])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"convert best: what is to be made comes first; .*ranks"):
        main(["best", *given])


def test_a_mixture_has_no_ranks(tmp_path: Path, data_root: Path) -> None:
    routed = tiny(moe=MoeConfig("btt", 4, 2))
    state, folder = train(routed, (4,), tmp_path, data_root)
    assert state == "done"
    with pytest.raises(UserError, match=r"the run is a mixture \(moe=btt\)"):
        main(["ranks", f"run={folder.path}"])
