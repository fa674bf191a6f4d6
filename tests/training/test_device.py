"""A GPU that is there and cannot be used is refused in one line that names the way out; its parts have names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.config.doors import sweep_request
from structlin.config.placement import Placement
from structlin.errors import UserError
from structlin.runs import devices, driver, machine
from structlin.runs.devices import Gpu
from structlin.training import device as device_module
from structlin.training import probe
from structlin.training.device import pick_device, settle, unusable
from tests.tiny import ARGUMENTS, tiny

AUTO = Placement()


@pytest.fixture
def gpu_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an A100 that this torch cannot use."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "listed", lambda: [Gpu("NVIDIA A100-SXM4-80GB", "GPU-8932f937")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_never_trains_on_a_processor_beside_a_gpu(gpu_node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for placement in (AUTO, Placement(device="cuda")):
        with pytest.raises(UserError, match=r"A100.*device=cpu") as error:
            pick_device(placement)
        assert "\n" not in str(error.value)
    assert pick_device(Placement(device="cpu")) == torch.device("cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device(AUTO) == torch.device("cpu")


def test_without_a_gpu_auto_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "listed", list)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(AUTO) == torch.device("cpu")
    with pytest.raises(UserError, match="torch sees no CUDA device here"):
        pick_device(Placement(device="cuda"))


@pytest.mark.parametrize(
    ("version", "cuda", "driver_version", "said"),
    [
        ("2.13.0+cpu", "", "580.65", "torch 2.13.0.cpu is built without CUDA, .*make setup CUDA=13"),
        ("2.13.0+cpu", "", "550.54", "built without CUDA, .*make setup CUDA=12"),
        ("2.13.0", "13.0", "550.54", "driver 550.54 is too old for torch 2.13.0, whose CUDA 13.0 needs 580 .*CUDA=12"),
        ("2.13.0", "13.0", "590.10", "NVIDIA A100.*torch 2.13.0 sees no CUDA device: does nvidia-smi"),
        ("2.13.0", "13.0", "", "NVIDIA A100.*torch 2.13.0 sees no CUDA device"),
    ],
)
def test_the_reason_names_the_build_that_would_serve(version: str, cuda: str, driver_version: str, said: str) -> None:
    import re

    assert re.search(said, unusable(["NVIDIA A100"], driver_version, version, cuda))


def test_a_gpu_older_than_the_build_is_refused(gpu_node: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "sm_120a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla V100")
    for capability, allowed in (((7, 0), False), ((7, 5), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, found=capability: found)
        if allowed:
            assert pick_device(AUTO) == torch.device("cuda")
        else:
            with pytest.raises(UserError, match=r"compute capability 7.5 and newer, and Tesla V100 has 7.0"):
                pick_device(AUTO)


@pytest.mark.parametrize(
    ("wishes", "device"),
    [
        (["launch=slurm"], "cuda"),
        (["launch=slurm", "launch.gpus=0"], "auto"),
        (["launch=slurm_cpu"], "auto"),
        (["launch=slurm", "device=cpu"], "cpu"),
        (["launch=local"], "auto"),
    ],
)
def test_where_gpus_are_asked_for_nothing_else_serves(wishes: list[str], device: str) -> None:
    given = [word for word in ARGUMENTS if not word.startswith("device=")]
    assert sweep_request([*given, "budget=1e9", *wishes]).site.placement.device == device


# ---- what the driver and nvidia-smi say -----------------------------------------------------------------------------

LISTED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c)
  MIG 1g.5gb      Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-404b5a4d-06c0-7d70-1a51-e59b25b2c16c)
  MIG 1g.10gb     Device  0: (UUID: MIG-7fdb4b08-c93d-5a21-a8d3-2a7a3a8d9a40)
"""


def test_parts_of_gpus_are_named_as_torch_does() -> None:
    assert driver.read_parts(LISTED) == {
        "MIG-c7384736-a75d-5afc-978f-d2f1294409fd": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d": "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "MIG-7fdb4b08-c93d-5a21-a8d3-2a7a3a8d9a40": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    }
    assert driver.read_parts("") == {}


def test_an_unlisted_part_gets_no_model_of_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    part = "MIG-7a8e2f11-53c2-5c1e-9d0c-2f1c6a2b9f10"
    mixed = [Gpu("NVIDIA A100", "GPU-aa"), Gpu("NVIDIA H200", "GPU-bb")]
    monkeypatch.setattr(devices, "mig_names", dict)
    assert devices.model(part, mixed) == "NVIDIA MIG"
    assert devices.model(part, mixed[:1]) == "NVIDIA A100 MIG"
    assert devices.model("MIG-GPU-bb/1/0", mixed) == "NVIDIA H200 MIG"
    monkeypatch.setattr(devices, "mig_names", lambda: driver.read_parts(LISTED))
    listed = "MIG-7fdb4b08-c93d-5a21-a8d3-2a7a3a8d9a40"
    assert devices.model(listed, mixed) == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"


@pytest.mark.parametrize(
    ("names", "gigabytes"),
    [
        ([], 0),
        (["NVIDIA A100-SXM4-40GB"], 40),
        (["NVIDIA H100 80GB HBM3"], 80),
        (["NVIDIA H200"], 141),
        (["NVIDIA B200"], 192),
        (["NVIDIA A100-SXM4-40GB MIG 1g.5gb"], 5),
        (["NVIDIA A100 MIG"], 0),
        (["Quadro P400"], 0),
    ],
)
def test_a_name_says_its_memory(names: list[str], gigabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_names", lambda: names)
    assert machine.gpu_memory_gb() == gigabytes


def test_the_version_of_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(driver, "_VERSION", path)
    assert driver.driver_version() == ""
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n")
    assert driver.driver_version() == "580.65.06"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    assert driver.driver_version() == "535.104.05"
    assert driver.is_too_old("535.104.05", "13.0")
    assert not driver.is_too_old("535.104.05", "12.6")
    assert not driver.is_too_old("", "13.0")


# ---- what a run does there ------------------------------------------------------------------------------------------


def test_a_probe_takes_the_whole_batch_on_a_gpu_and_little_of_it_on_a_processor() -> None:
    one = tiny(d_model=256)
    large = replace(one, optim=replace(one.optim, batch_tokens=16 * 4096))
    assert probe.rows_of(large, AUTO, torch.device("cuda")) == large.rows == 4096
    assert probe.rows_of(large, replace(AUTO, micro_tokens="1600"), torch.device("cuda")) == 4096
    assert 1 <= probe.rows_of(large, AUTO, torch.device("cpu")) < 4096


def test_tf32_and_repeatable_sums_are_switched_by_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    switched: dict[str, bool] = {}
    for name in ("enable_flash_sdp", "enable_cudnn_sdp"):
        monkeypatch.setattr(torch.backends.cuda, name, lambda on, name=name: switched.update({name: on}))
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    tf32 = tiny(model=replace(tiny().model, dtype="tf32"))
    try:
        settle(gpu, AUTO, tf32)
        assert torch.get_float32_matmul_precision() == "high"
        settle(gpu, replace(AUTO, deterministic=True), tiny())
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.are_deterministic_algorithms_enabled()
        assert switched == {"enable_flash_sdp": False, "enable_cudnn_sdp": False}
        settle(cpu, replace(AUTO, deterministic=True), tf32)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        settle(cpu, AUTO, tiny())
    assert device_module.gpu_bytes(replace(AUTO, gpu_memory_gb=40), cpu) == 40e9
