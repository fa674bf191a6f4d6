"""CUDA_VISIBLE_DEVICES as CUDA reads it: which devices, by which names, and what is a mistake."""

from pathlib import Path

import pytest
import torch

from structlin.config.placement import Placement
from structlin.errors import UserError
from structlin.runs import devices
from structlin.runs.devices import Gpu, visible
from structlin.runs.machine import gpu_names, machine_key

A = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
B = "GPU-8932f9aa-0000-4106-c12f-20bd9faed9f6"
C = "GPU-c0ffee00-d72c-4106-c12f-20bd9faed9f6"
MIG = "MIG-7a8e2f11-53c2-5c1e-9d0c-2f1c6a2b9f10"
OTHER_MIG = "MIG-1b2c3d4e-53c2-5c1e-9d0c-2f1c6a2b9f10"
OLD_MIG = f"MIG-{A}/1/0"

GPUS = [Gpu("NVIDIA A100", A), Gpu("NVIDIA A100", B), Gpu("NVIDIA H200", C)]

# (value of the variable, the devices that it shows on a machine with the three GPUs above)
SEEN = [
    (None, ["0", "1", "2"]),
    ("", []),
    (" ", []),
    ("-1", []),
    ("NoDevFiles", []),
    ("0", ["0"]),
    ("2", ["2"]),
    ("2,0", ["2", "0"]),
    (" 1 , 2 ", ["1", "2"]),
    ("0,1,", ["0", "1"]),
    ("0,2,-1,1", ["0", "2"]),
    ("-1,0", []),
    ("0,,1", ["0"]),
    (",0", []),
    ("0,NoDevFiles", ["0"]),
    ("0,3,1", ["0"]),
    ("3", []),
    ("0,-1,0", ["0"]),
    (C, [C]),
    (f"{C},{A}", [C, A]),
    ("GPU-c", ["GPU-c"]),
    ("GPU-c0ffee,GPU-8932f93", ["GPU-c0ffee", "GPU-8932f93"]),
    ("GPU-c0ffee,GPU-8932f9,GPU-8932f93", ["GPU-c0ffee"]),
    ("GPU-dead,GPU-c0ffee", []),
    (f"0,{C}", ["0"]),
    (f"{C},0", [C]),
    (MIG, [MIG]),
    (f"{MIG},{OTHER_MIG}", [MIG, OTHER_MIG]),
    (OLD_MIG, [OLD_MIG]),
    (f"MIG-{A}/1/0,MIG-{A}/2/0", [f"MIG-{A}/1/0", f"MIG-{A}/2/0"]),
    (f"{MIG},0", [MIG]),
    ("MIG-GPU-dead/1/0", []),
]


@pytest.mark.parametrize(("value", "seen"), SEEN)
def test_the_list_ends_at_the_first_name_of_no_device(value: str | None, seen: list[str]) -> None:
    assert visible(value, GPUS) == seen


@pytest.mark.parametrize("value", [value for value, _ in SEEN if value is not None])
def test_torch_reads_the_same(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    parsed = torch.cuda._parse_visible_devices()
    if parsed and str(parsed[0]).startswith("GPU-"):
        parsed = torch.cuda._transform_uuid_to_ordinals(parsed, [gpu.uuid for gpu in GPUS])
        mine = [devices._index(name, GPUS) for name in visible(value, GPUS)]
    else:
        # Torch asks the driver for the rest: here nothing is known of the machine.
        mine = [int(name) if name.isdecimal() else name for name in visible(value, [])]
    assert mine == parsed


@pytest.mark.parametrize("value", ["0,0", "1,01", "2,0,2", f"{A},{A}", f"{C},GPU-c0ffee", f"{MIG},{MIG}"])
def test_a_device_named_twice_is_one_clear_line(value: str) -> None:
    with pytest.raises(UserError, match="names a GPU twice") as error:
        visible(value, GPUS)
    assert value in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["gpu0", "cuda:0", "all", "0 1", "0;1", "0,gpu1", "1.0", "0x1", "+1", "none", "GPU-", "GPU-xyz", "MIG-", A[4:]],
)
def test_what_is_no_name_is_one_clear_line(value: str) -> None:
    with pytest.raises(UserError, match="names no GPU; write indices") as error:
        visible(value, GPUS)
    assert value in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_list_of_gpus_every_name_counts_and_there_are_none_unasked() -> None:
    assert visible(None, []) == []
    assert visible("7,5", []) == ["7", "5"]
    assert visible("GPU-dead", []) == ["GPU-dead"]


def test_gpus_of_equal_model_and_unknown_uuid_are_two() -> None:
    sleeping = [Gpu("NVIDIA A100"), Gpu("NVIDIA A100")]
    assert visible("1,0", sleeping) == ["1", "0"]
    assert visible("GPU-c0,GPU-dead", sleeping) == ["GPU-c0", "GPU-dead"]
    with pytest.raises(UserError, match="twice"):
        visible("GPU-c0,GPU-c0", sleeping)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose driver lists the three GPUs; the second sleeps."""
    for index, gpu in enumerate(GPUS):
        folder = tmp_path / f"0000:0{index}:00.0"
        folder.mkdir()
        uuid = gpu.uuid if index != 1 else "GPU-????????-????-????-????-????????????"
        text = f"Model: \t\t {gpu.model}\nIRQ:   \t\t 34\nGPU UUID: \t {uuid}\nBus Location: \t 0000:0{index}:00.0\n"
        (folder / "information").write_text(text)
    monkeypatch.setattr(devices, "_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_driver_s_list(machine: None) -> None:
    assert devices.listed() == [GPUS[0], Gpu("NVIDIA A100"), GPUS[2]]
    assert gpu_names() == ["NVIDIA A100", "NVIDIA A100", "NVIDIA H200"]


@pytest.mark.parametrize(
    ("value", "key"),
    [("2,0", "NVIDIA H200"), ("GPU-c0", "NVIDIA H200"), (OLD_MIG, "NVIDIA A100 MIG"), ("0", "NVIDIA A100")],
)
def test_speeds_are_kept_under_the_first_visible_gpu(
    machine: None, value: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert machine_key(Placement()) == key
    assert "thread" in machine_key(Placement(device="cpu"))


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "3"])
def test_without_a_visible_gpu_speeds_are_those_of_the_processor(
    machine: None, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert machine_key(Placement()) == machine_key(Placement(device="cpu"))


def test_a_mistake_matters_only_where_gpus_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "gpu0")
    assert "thread" in machine_key(Placement(device="cpu"))
    with pytest.raises(UserError, match="'gpu0' names no GPU"):
        machine_key(Placement())
