"""A model that is compiled, and never run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.fake.count import SEVERAL, WHOLE_LAUNCHES, Count
from bench.fake.device import pretend_to_compile
from structlin.kernels.experts.choice import Scores
from structlin.models.gpt2 import GPT2
from structlin.nn.router import routers


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

        pretend_to_compile()
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
