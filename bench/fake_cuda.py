"""What would a training step do on a GPU? Told without one: on tensors of device "cuda" that hold nothing.

    FAKE/bin/python -m bench.fake_cuda [cases=dense:256,btt1:1024:recompute] [out=bench/results]

FAKE is an environment of its own with torch's CUDA build (several GB): python -m venv FAKE; FAKE/bin/pip install
torch==2.13.0 numpy, and g++. Nothing runs: every operation says its shapes (torch's FakeTensorMode), and counted are
kernels, bytes that they read and write (each tensor once), what is alive at a time, and waits of the host.

What is counted is exact for operations launched one by one. Of a compiled model they are the kernels into which
Inductor schedules its forward and its backward pass; loss, clipping and optimizer stay as they are, as in a run. How
long a step takes is not counted: no time stands here. Peaks are those of live tensors; an allocator keeps a few percent
more.

A case is structure:width and words: recompute, micro=TOKENS, tokens=, layers=, context=, norm=, dtype=, moe=KIND,
experts=, data=gpt2 (byte pairs), paper (rounding), compile, combine (compile, and Inductor's combo kernels: independent
ones in one launch), fused (every layer of two factors in the fused kernels, whatever the rule says).
"""

from __future__ import annotations

import collections
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import cpp_extension
from torch.utils._python_dispatch import TorchDispatchMode

from structlin.anatomy.memory import peak
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.errors import key_values
from structlin.kernels import backends
from structlin.kernels.attention import attention
from structlin.kernels.experts.choice import Scores
from structlin.kernels.products import face
from structlin.kernels.products.layout import ProductSizes
from structlin.models.gpt2 import GPT2
from structlin.nn.blocks import recompute
from structlin.nn.router import routers
from structlin.structure import theta_of
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.optim import make_optimizer
from structlin.training.parts import gradients, parts_of
from structlin.training.world import ONE_PROCESS

SOURCE = Path(__file__).with_suffix(".cpp")
CAPABILITY = (9, 0)
_VIEWS = """view _unsafe_view transpose permute t expand slice select unsqueeze squeeze detach as_strided alias unbind
split split_with_sizes empty empty_strided new_empty empty_like _reshape_alias unfold lift_fresh new_empty_strided
resize_ is_same_size diagonal narrow chunk"""
VIEWS = frozenset(_VIEWS.split())
"""Operations that move nothing."""
WAITS = frozenset(("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"))
"""Operations whose result the host needs."""
FUSED_LAUNCHES, SEVERAL = (
    {"products": 1, "products_backward": 6},
    {"sort": 6, "argsort": 6, "logsumexp": 6, "cumsum": 2},
)
"""Kernels of our operators (map; of the gradients a map, the kernel, and sums and casts of the shares of both factors),
and of others."""
WHOLE_LAUNCHES = 5
"""Where one kernel makes all gradients."""

# ---- the machine that is not there ----------------------------------------------------------------------------------


def pretend() -> None:
    """Let torch take a GPU of ``CAPABILITY`` for there. SystemExit for a build without CUDA."""
    if torch.version.cuda is None:
        raise SystemExit(f"torch {torch.__version__} is built without CUDA; {(__doc__ or '').splitlines()[3]}")
    library = Path(tempfile.gettempdir()) / f"structlin-fake-cuda-{torch.__version__}.so"
    if not library.exists():
        include = [f"-I{path}" for path in cpp_extension.include_paths()]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
        where = Path(torch.__file__).parent / "lib"
        build = ["g++", "-shared", "-fPIC", "-std=c++20", abi, *include, str(SOURCE), f"-L{where}"]
        subprocess.run([*build, "-ltorch_cpu", "-lc10", "-o", str(library)], check=True)
    assert ctypes.CDLL(str(library)).structlin_no_context() == 0
    torch.cuda.get_device_capability = lambda device=None: CAPABILITY
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda.get_device_name = lambda *_: "no GPU"
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    setattr(attention, "functional", _Functional())  # noqa: B010 (torch's module, as that room sees it)
    backends.has_triton.cache_clear()


class _Functional:
    """torch.nn.functional, whose attention takes the kernels that a GPU would choose: the choice asks the driver."""

    def __getattr__(self, name: str) -> Any:
        return _flash if name == "scaled_dot_product_attention" else getattr(torch.nn.functional, name)


def _flash(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = True, scale: float | None = None) -> Tensor:
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (tensor.to(torch.bfloat16) for tensor in (q, k, v))
    aten = torch.ops.aten
    if q.dtype == torch.float32:
        found: Tensor = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True, scale=scale)[0]
    else:
        found = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scale)[0]
    return found


# ---- counting -------------------------------------------------------------------------------------------------------


class Count(TorchDispatchMode):
    """Kernels, bytes, waits and live memory of what runs within it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: collections.Counter[str] = collections.Counter()
        self.moved: collections.Counter[str] = collections.Counter()
        self.waits: list[str] = []
        self.peak, self.where = 0, ""
        self.is_paused = False
        self._alive: dict[Any, tuple[StorageWeakRef, int]] = {}
        self._total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        found = function(*args, **(kwargs or {}))
        if self.is_paused:
            return found
        read = _tensors((args, kwargs))
        made = _tensors(found)
        short = name.split("::")[1]
        self._watch(made, name, _dropped(short, args))
        if short in WAITS or (short in ("_to_copy", "copy_") and len({one.device.type for one in (*read, *made)}) > 1):
            self.waits.append(short)
        on_gpu = any(tensor.device.type == "cuda" for tensor in (*read, *made))
        if on_gpu and short not in VIEWS and not name.startswith("prim::") and not function.is_view:
            self.kernels[name] += _launches(short, args)
            several = {id(tensor): tensor for tensor in (*read, *made)}.values()
            self.moved[name] += sum(tensor.numel() * tensor.element_size() for tensor in several)
            if short == "products_backward" and not _is_whole(args):
                self.moved[name] += args[0].numel() * args[0].element_size()  # dy is read by both of its kernels
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is counted."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def _watch(self, made: Sequence[Tensor], name: str, dropped: int) -> None:
        """``dropped``: bytes that the operation made for itself."""
        for tensor in made:
            if tensor.device.type != "cuda":
                continue
            storage = tensor.untyped_storage()
            known = self._alive.get(storage._cdata)
            if known is None or known[0].expired():
                self._total += storage.nbytes() - (known[1] if known else 0)
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if self._total + dropped > self.peak:
            for key in [key for key, (reference, _) in self._alive.items() if reference.expired()]:
                self._total -= self._alive.pop(key)[1]
            if self._total + dropped > self.peak:
                self.peak, self.where = self._total + dropped, name


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _dropped(short: str, args: Any) -> int:
    """Bytes that one of our operators holds while it works: the GELU that it multiplies."""
    x = {"products": 0, "products_backward": 1}.get(short)
    if x is None or len(args) < x + 5 or not args[-1] or (short == "products_backward" and len(args) < 8):
        return 0
    return int(args[x].numel() * args[x].element_size())


def _is_whole(args: Any) -> bool:
    """Whether a backward pass of two products is one kernel, which reads dy once."""
    from structlin.kernels.products import triton_path

    return triton_path.is_whole(ProductSizes.of(args[2].shape, args[3].shape, args[4])) and args[5] and args[6]


def _launches(short: str, args: Any) -> int:
    """Kernels of one operation; of lists of tensors by the pointers that one launch takes (estimates)."""
    if short == "_fused_adamw_":
        return -(-len(args[0]) // 24)
    if short.startswith("_foreach"):
        return -(-len(args[0]) // 48)
    if short in FUSED_LAUNCHES:
        first = 1 if short == "products" else 2
        sizes = ProductSizes.of(args[first].shape, args[first + 1].shape, args[first + 2])
        from structlin.kernels.products import triton_path

        assert triton_path.fuses(sizes)
        kernels = WHOLE_LAUNCHES if short == "products_backward" and _is_whole(args) else FUSED_LAUNCHES[short]
        return kernels + (len(args) > first + 3 and bool(args[-1]))
    return SEVERAL.get(short, 1)


# ---- cases ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A run's model and how it is placed."""

    name: str
    science: Science
    placement: Placement


def case(text: str) -> Case:
    """Of a text such as btt1:1024:recompute:micro=16384."""
    structure, width, *words = text.split(":")
    given = dict(word.partition("=")[::2] for word in words)
    moe = MoeConfig()
    if "moe" in given:
        kind = given["moe"]
        layers = "ffn" if kind == "ffn" else "all"
        moe = MoeConfig(kind, int(given.get("experts", 8)), 2, layers=layers, auxiliary_weight=0.01, z_weight=0.1)
    rounding = "paper" if "paper" in given else "exact"
    tokenizer = given.get("data", "char96")
    science = Science(
        structure=StructureConfig(str(theta_of(structure, rounding=rounding)), rounding),
        moe=moe,
        model=Gpt2Config(
            d_model=int(width),
            num_layers=int(given.get("layers", 3)),
            d_head=64,
            context=int(given.get("context", 512 if tokenizer == "gpt2" else 128)),
            dtype=given.get("dtype", "bfloat16"),
            weight_norm=given.get("norm", "none"),
        ),
        data=DataRecipe("sotu", tokenizer=tokenizer),
        optim=OptimConfig(batch_tokens=int(given.get("tokens", 245_760 if tokenizer == "gpt2" else 65_536))),
    )
    micro = given.get("micro", "auto")
    compiles = next((value for word, value in (("combine", "combine"), ("compile", "true")) if word in given), "false")
    return Case(text, science, Placement(recompute="recompute" in given, micro_tokens=micro, compile=compiles))


@dataclass(frozen=True)
class Counted:
    """What a step of a case does."""

    case: Case
    kernels: int
    gigabytes_moved: float
    peak_gb: float
    where: str
    waits: list[str]
    model_gb: float
    by_kernel: collections.Counter[str] = field(repr=False)
    by_moved: collections.Counter[str] = field(repr=False)


@contextmanager
def all_fused() -> Iterator[None]:
    """Within it every layer of two factors takes the fused kernels."""
    rule = vars(face)["gpu_form"]
    setattr(face, "gpu_form", lambda sizes: "fused")  # noqa: B010 (what that room sees)
    try:
        yield
    finally:
        setattr(face, "gpu_form", rule)  # noqa: B010


def count(one: Case) -> Counted:
    """One optimizer step, counted."""
    combines = torch._inductor.config.patch(combo_kernels=one.placement.compile == "combine")
    with all_fused() if "fused" in one.name.split(":") else nullcontext(), combines:
        return _count(one)


def _count(one: Case) -> Counted:
    counter, mode = Count(), FakeTensorMode(allow_non_fake_inputs=True)
    compiles = one.placement.compiles("cuda")
    with mode, counter, _placed(one) as (model, optimizer, batch):
        counter.kernels.clear()
        counter.moved.clear()
        counter.waits.clear()
        learner, parts = NextTokenLearner(one.science), parts_of(one.science, one.placement)
        forward: Any = Compiled(model, counter, mode) if compiles else model
        gradients(one.science, learner, model, forward, batch, parts, ONE_PROCESS)
        before = counter.kernels.copy(), counter.moved.copy(), list(counter.waits)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # Clipping asks the capability of a device for lists of tensors, which fakes do not have: nine launches.
        counter.kernels, counter.moved, counter.waits = before
        counter.kernels["clip"] += 9
        counter.moved["clip"] += 3 * sum(4 * parameter.numel() for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model_gb = peak(one.science, one.placement).total / 1e9
    return Counted(
        one,
        sum(counter.kernels.values()),
        sum(counter.moved.values()) / 1e9,
        model_gb if compiles else counter.peak / 1e9,
        "not counted" if compiles else counter.where,
        counter.waits,
        model_gb,
        counter.kernels,
        counter.moved,
    )


class Compiled:
    """A model whose forward and backward pass are graphs of their own, divided and scheduled as torch.compile does.

    Bytes are those of the arguments of the kernels. What is kept between both is chosen as there, but passes that
    would compute constants on the device are left out; peaks are not counted. A prediction, until a GPU has run it.
    """

    training = True

    def __init__(self, model: GPT2, counter: Count, mode: FakeTensorMode) -> None:
        from torch._functorch.aot_autograd import aot_function
        from torch._functorch.partitioners import min_cut_rematerialization_partition
        from torch._inductor.decomposition import select_decomp_table

        _pretend_to_compile()
        self._model, self._counter, self._mode = model, counter, mode
        self._names = list(dict(model.named_parameters()))
        self._graphs = aot_function(
            self._traced,
            self._lowered,
            self._lowered,
            partition_fn=partial(min_cut_rematerialization_partition, compiler="inductor"),
            decompositions=select_decomp_table(),
        )

    def __call__(self, *batch: Tensor) -> Tensor:
        """What the model returns; its routers have been told what their losses read."""
        with self._counter.paused():
            found, *scored = self._graphs(*self._model.parameters(), *batch)
        for (_, router), logits, ends in zip(routers(self._model), scored[::2], scored[1::2], strict=True):
            router._scored = Scores(logits), ends
        y: Tensor = found
        return y

    def modules(self) -> Iterator[nn.Module]:
        """Those of the model."""
        return self._model.modules()

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The same with their names."""
        return self._model.named_modules()

    def _traced(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights, batch = tensors[: len(self._names)], tensors[len(self._names) :]
        found = torch.func.functional_call(self._model, dict(zip(self._names, weights, strict=True)), batch)
        scored = [router.take_scores() for _, router in routers(self._model)]
        return found, *(tensor for one in scored if one is not None for tensor in (one[0].logits_TE, one[1]))

    def _lowered(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Any:
        from torch._inductor.fx_passes.post_grad import post_grad_passes, view_to_reshape
        from torch._inductor.graph import GraphLowering
        from torch._inductor.virtualized import V

        view_to_reshape(gm)
        with self._counter.paused(), V.set_fake_mode(self._mode):
            post_grad_passes(gm, False)
            lowering = GraphLowering(gm, is_inference=False)
            with V.set_graph_handler(lowering), V.set_debug_handler(_Silent()):
                lowering.run(*example_inputs)
                lowering._update_scheduler()
                moved, nodes, _ = lowering.count_bytes()
        self._counter.moved["compiled"] += moved
        for node, _ in nodes:
            name, number = _scheduled(node)
            self._counter.kernels[name] += number

        def run(arguments: list[Any]) -> Any:
            with self._counter.paused(), torch.no_grad():
                return gm(*arguments)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run


def _scheduled(node: Any) -> tuple[str, int]:
    """What a node of Inductor's schedule is, and how many kernels."""
    inner = getattr(node, "node", None)
    if inner is None:
        return "fused", 1
    name = str(getattr(inner, "python_kernel_name", None) or type(inner).__name__)
    short = name.removesuffix(".default").rpartition(".")[2]
    if short == "MultiOutput" or "Nop" in type(node).__name__:
        return "nothing", 0
    if type(getattr(inner, "data", None)).__name__ == "SplitScan":
        return "scan", 2  # one sets its workspace to zero
    return short, {"products_backward": WHOLE_LAUNCHES, "stable": SEVERAL["sort"]}.get(short, 1)


class _Silent:
    """Inductor's debug handler, which has nothing to say."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _pretend_to_compile() -> None:
    """Let Inductor find the properties of a GPU, and Triton."""
    import torch._inductor.scheduler as scheduler

    found = {"name": "no GPU", "major": 9, "minor": 0, "multi_processor_count": 132, "total_memory": 80 * 10**9}
    found |= {"regs_per_multiprocessor": 65536, "max_threads_per_multi_processor": 2048, "warp_size": 32}
    found |= {"shared_memory_per_block": 49152, "shared_memory_per_block_optin": 232448, "L2_cache_size": 50 << 20}
    properties = SimpleNamespace(**found, gcnArchName="", max_threads_per_block=1024)
    setattr(torch.cuda, "_get_device_properties", lambda *_: properties)  # noqa: B010 (absent without a driver)
    setattr(torch.cuda, "get_device_properties", lambda *_: properties)  # noqa: B010 (of another class)
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 1
    torch.cuda._lazy_init = lambda: None
    setattr(scheduler, "has_triton", lambda *_, **__: True)  # noqa: B010 (as that module sees it)


@contextmanager
def _placed(one: Case) -> Iterator[tuple[GPT2, torch.optim.AdamW, tuple[Tensor, Tensor]]]:
    """Model, optimizer with its moments, and a batch, on the GPU that is not there."""
    with torch.device("cuda"):
        model = GPT2(one.science)
    if one.placement.recompute:
        recompute(model)
    optimizer = make_optimizer(model, one.science.optim)
    for parameter in model.parameters():
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device="cuda"), **moments}
    inputs = torch.zeros(one.science.rows, one.science.model.context, dtype=torch.int64, device="cuda")
    yield model, optimizer, (inputs, torch.zeros_like(inputs))


# ---- the table ------------------------------------------------------------------------------------------------------

STEPS = [f"{name}:{width}" for width in (256, 1024) for name in ("dense", "btt1", "btt11")]
STEPS += [f"dense:{width}:moe=btt:norm=learned" for width in (256, 1024)]
COMPILED = [f"{text}:compile" for text in (*STEPS, "btt1:256:fused", "btt11:1024:fused")]
COMPILED += [f"{text}:combine" for text in STEPS if "moe" in text]
PEAKS = [f"{name}:{width}" for width in (256, 1024, 2048) for name in ("dense", "btt1", "btt11", "g2", "l2")]
PEAKS += [
    f"dense:{width}:moe={kind}:norm=learned{more}"
    for width in (256, 1024)
    for kind in ("btt", "ffn", "dense", "low_rank")
    for more in ("", ":experts=16")
]
PEAKS += ["btt1:1024:moe=ffn:norm=learned", "dense:1024:moe=ffn:layers=9:experts=16:norm=learned"]
PEAKS += [f"{name}:1024:{more}" for name in ("dense", "btt1", "g2") for more in ("recompute", "micro=16384")]
PEAKS += ["dense:1024:moe=btt:norm=learned:recompute", "dense:1024:moe=btt:norm=learned:micro=16384"]
PEAKS += [
    "btt1:256:data=gpt2:micro=65536",
    "dense:1536:data=gpt2:micro=32768",
    "btt1:1024:data=gpt2:micro=16384:recompute",
]
PEAKS += ["btt1:512:norm=fixed", "dense:512:dtype=float32", "btt1:512:dtype=float32"]


def main(arguments: list[str]) -> int:
    """Print the table, and keep it where ``out`` says."""
    values = key_values(arguments, {"cases": "", "out": "-", "kernels": "0"})
    pretend()
    texts = (
        values["cases"].split(",")
        if values["cases"]
        else [*STEPS, *COMPILED, *(name for name in PEAKS if name not in STEPS)]
    )
    rows = []
    for text in texts:
        began = time.monotonic()
        found = count(case(text))
        row = {
            "case": text,
            "kernels": found.kernels,
            "gb_moved": round(found.gigabytes_moved, 2),
            "peak_gb": round(found.peak_gb, 3),
            "model_gb": round(found.model_gb, 3),
            "waits": len(found.waits),
        }
        rows.append(row)
        ratio, seconds = found.model_gb / found.peak_gb, time.monotonic() - began
        print(
            f"{text:55s} {found.kernels:6d} kernels {found.gigabytes_moved:9.1f} GB moved, "
            f"peak {found.peak_gb:8.2f} GB, model {ratio:.3f} of it, {len(found.waits)} waits, "
            f"{seconds:.0f} s, at {found.where}",
            flush=True,
        )
        if values["out"] != "-":
            path = Path(values["out"]) / "fake-cuda.json"
            path.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
        for name, number in found.by_kernel.most_common(int(values["kernels"])):
            print(f"    {number:6d} {found.by_moved[name] / 1e9:9.2f} GB {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
