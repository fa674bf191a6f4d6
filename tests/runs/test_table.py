"""The table has a row per evaluation with everything a reader asks for, and sums that add up."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.runs import table
from tests.tiny import PLACEMENT, tiny, train

CONTRACT = set(
    """
    run_id variant structure theta moe task data tokenizer model optimizer rate_rule d_model num_layers d_head context
    seed learning_rate batch_tokens dtype schedule warmup_steps horizon_steps in_warmup step tokens val_loss
    macs_per_token macs_attention macs_linear macs_head macs_router params_total params_active params_embedding
    params_linear params_norm params_head params_router training_flops paper_flops logged_flops weight_bytes
    activation_bytes recomputed_flops
    tokens_per_second nu omega psi device threads backend torch_version world_size status
    """.split()  # noqa: SIM905 - a list of 49 quoted names would be no easier to read
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    runs = tmp_path_factory.mktemp("table")
    for structure in ("dense", "btt"):
        train(tiny(structure), (2, 8, 16), runs, data_root)
    return runs


def test_every_column_of_the_contract(store: Path) -> None:
    found = table.load(store)
    assert set(found.columns) >= CONTRACT
    assert len(found) == 6
    assert found[sorted(CONTRACT - {"horizon_steps", "tokens_per_second"})].notna().all().all()


def test_sums_and_conventions(store: Path) -> None:
    found = table.load(store)
    macs = found["macs_attention"] + found["macs_linear"] + found["macs_head"] + found["macs_router"]
    assert (macs == found["macs_per_token"]).all()
    assert (found["training_flops"] == 6 * found["macs_per_token"] * found["tokens"]).all()
    assert (found["training_flops"] == 6 * found["paper_flops"]).all()
    # Layer norms of 5 an element: 5 of them a token at 1 block, and those of q and k.
    dearer = (found["logged_flops"] - found["paper_flops"]) / found["tokens"]
    assert (dearer == found["logged_macs_per_token"] - found["macs_per_token"]).all()
    assert (dearer == 5 * (4 * found["num_layers"] + 1) * found["d_model"]).all()
    assert found["in_warmup"].tolist() == [True, False, False] * 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_export_and_read_again(suffix: str, store: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / f"table{suffix}"
    table.main([f"runs={store}", f"out={out}"])
    again = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    original = table.load(store)
    assert again["val_loss"].tolist() == original["val_loss"].tolist()
    assert again["run_id"].astype(str).tolist() == original["run_id"].tolist()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["out=x.xlsx"], ".xlsx"), (["run=x"], "did you mean 'runs'"), (["runs=nowhere"], "no run store at nowhere")],
)
def test_bad_input(arguments: list[str], hint: str, store: Path) -> None:
    with pytest.raises(UserError, match=hint.replace(".", r"\.")):
        table.main([f"runs={store}", *arguments])


def test_an_empty_store_is_an_empty_table(tmp_path: Path) -> None:
    assert table.load(tmp_path).empty


def test_a_run_that_recomputes_says_so_and_does_the_same_work(store: Path, tmp_path: Path, data_root: Path) -> None:
    again = replace(PLACEMENT, recompute=True)
    for structure in ("dense", "btt"):
        train(tiny(structure), (2, 8, 16), tmp_path, data_root, placement=again)
    plain, found = table.load(store), table.load(tmp_path)
    for column in ("run_id", "val_loss", "training_flops", "paper_flops", "macs_per_token", "config.model.d_model"):
        assert found[column].tolist() == plain[column].tolist()
    assert (plain["recomputed_flops"] == 0).all()
    blocks = found["macs_per_token"] - found["macs_head"]
    assert (found["recomputed_flops"] == 2 * blocks * found["tokens"]).all()
    assert (found["activation_bytes"] <= plain["activation_bytes"] + 4 * 64 * 16).all()
