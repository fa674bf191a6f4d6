"""Wrong command lines: one clear line on stderr that names the way out, exit code 2, nothing lost, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

import sweep
import train
from analysis import make, report
from structlin.command import demo
from structlin.errors import door

ROOT = Path(__file__).parents[2]

# (door, arguments, what the one line must say)
WRONG = [
    (sweep, ["structure=bttt", "budget=1e15"], "did you mean 'btt'"),
    (sweep, ["budegt=1e15"], "did you mean 'budget'"),
    (sweep, ["structure=btt"], "no budget"),
    (sweep, ["budget=lots"], "not a number"),
    (sweep, ["budget=-1e15"], "budget = -1"),
    (sweep, ["budget=1e3"], "no whole step"),
    (sweep, ["budget=1e15", "grid.widths=[65]"], "nearest widths: 64, 128"),
    (sweep, ["budget=1e15", "grid.widths=[0]"], "grid.widths"),
    (sweep, ["budget=1e15", "model.d_model=64"], "grid.widths"),
    (sweep, ["structure=einsum", "budget=1e15"], "structure.theta="),
    (sweep, ["structure=einsum", "structure.theta=1,2", "budget=1e15"], "has 2 numbers, but needs 7"),
    (sweep, ["structure=einsum", "structure.theta=1,1,0,1,0,0,0", "budget=1e15"], "must be 1"),
    (sweep, ["structure=einsum", "structure.theta=0,1,0,1,0,0,1/2", "budget=1e15"], "theta"),
    (sweep, ["structure=einsum", "structure.theta=1,0,0,0,0,1,1/2", "budget=1e15"], "degenerate"),
    (sweep, ["structure=btt", "structure.theta=1,0,0,0,1,0,0", "budget=1e15"], "structure=einsum"),
    (sweep, ["structure=btt", "structure.rounding=papr", "budget=1e15"], "did you mean 'paper'"),
    (sweep, ["budget=1e15", "grid=fronteer"], "did you mean 'frontier'"),
    (sweep, ["budget=1e15", "grid=isoflop", "schedule=constant"], "schedule"),
    (sweep, ["budget=1e15", "scale=tiny"], "valid: classification, paper, pixels"),
    (sweep, ["budget=1e15", "seed=-1"], "seed"),
    (sweep, ["budget=1e15", "optim.lr=fast"], "optim.lr"),
    (sweep, ["budget=1e15", "format=json"], "dry_run=true"),
    (sweep, ["budget=1e15", "data=text"], "data.path"),
    (sweep, ["budget=1e15", "+new=1"], "neither added"),
    (sweep, ["budget=1e15", "structure={btt"], "cannot read"),
    (sweep, ["budget"], "key=value"),
    (sweep, ["--budget", "1e15"], "--help"),
    (sweep, ["structure=sample", "structure.psi=[2,3]", "budget=1e15", "structure.count=1"], "widen the bounds"),
    (sweep, ["budget=1e15", "grid.widths=[1e30]"], "at most 1e+07"),
    (sweep, ["budget=1e15", "model.d_head=1e30"], "model.d_head = 1e+30"),
    (sweep, ["budget=1e15", "model.num_layers=1e30"], "model.num_layers = 1e+30"),
    (sweep, ["budget=" + "9" * 400], "400 digits"),
    (sweep, ["structure=einsum", "structure.theta=nan,0,1,0,0,1,0", "budget=1e15"], "'nan'"),
    (sweep, ["structure=einsum", "structure.theta=1e9,0,0,0,1,0,0", "budget=1e15"], "outside [0, 1]"),
    (sweep, ["structure=sample", "structure.count=1e9", "budget=1e15"], "at most 100,000"),
    (sweep, ["budget=1e15", "seed=${seed}"], "without ${..}"),
    (sweep, ["budget=1e15", "structure@x=btt"], "a key has no @"),
    (sweep, ["budget=1e15", "dry_run=true", "watch=true"], "leave out one"),
    (train, ["model.d_model=512", "tokens=1e7", "threads=1e9"], "threads = 1e+09"),
    (demo, ["structure=low_rank"], "takes no structure="),
    (demo, [], "takes no runs="),
    (make, ["figure=fig2", "out=README.md"], "a file stands where a folder is needed"),
    (report, ["out=README.md/report"], "a file stands where a folder is needed"),
    (train, ["structure=btt"], "model.d_model=512 tokens=1e7"),
    (train, ["structure=btt", "model.d_model=500", "tokens=1e7"], "nearest widths: 448, 512"),
    (train, ["structure=btt,dense", "model.d_model=512", "tokens=1e7"], "sweep.py"),
    (train, ["model.d_model=512", "tokens=some"], "tokens"),
    (train, ["model.d_model=512", "tokens=1e7", "device=tpu"], "valid: auto, cpu, cuda"),
]


@pytest.mark.parametrize(
    ("module", "arguments", "hint"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_command_line_is_one_clear_line(module, arguments, hint, monkeypatch, capsys, tmp_path) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments, f"runs={runs}"])
    with pytest.raises(SystemExit) as ended:
        door(module.main)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert hint in printed.err
    assert printed.out == ""
    assert not runs.exists()


@pytest.mark.parametrize("runs", ["/proc/nowhere", "README.md"])
def test_a_store_that_cannot_be_written_is_one_clear_line(runs: str, monkeypatch, capsys, data_root: Path) -> None:
    arguments = ["scale=small", "budget=1e11", f"runs={runs}", f"data.root={data_root}", "launch.max_hours=1e-9"]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        door(sweep.main)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.count("\n") == 1
    assert runs in printed.err


def test_the_doors_themselves_exit_with_2_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "sweep.py", "structure=bttt", "budget=1e15"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("name", ["sweep.py", "train.py"])
def test_help_lists_groups_and_keys_without_torch(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", name, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "btt btt1 " in done.stdout
    assert "rate_rule" in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_closed_pipe_ends_quietly() -> None:
    script = f"{sys.executable} sweep.py --help | head -n 1"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
