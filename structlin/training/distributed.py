"""How do several processes train one run as if they were one? Each takes a share of the rows of every batch.

    ddp    every rank holds the whole model; gradients are averaged while the backward pass runs
    fsdp   every rank holds a part of each weight, its gradient and optimizer state (FSDP2); a block is gathered
           when it is used

``Group`` is the World (training/world.py) of a rank. Any number of ranks trains to the numbers of one process but for
rounding: sums are added in another order.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from structlin.nn.guide import guides
from structlin.nn.ranks import join
from structlin.training.world import GO_ON, move

T = TypeVar("T")


class Group:
    """One of several processes, started by torchrun; in its ``close`` all of them part."""

    def __init__(self, sharding: str) -> None:
        """``sharding``: ddp or fsdp. The processes of torch.distributed must have met (``meet``)."""
        assert sharding in ("ddp", "fsdp")
        self.sharding = sharding
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        # Wishes travel beside the training step, so they need a group whose order of calls is their own.
        self._wishes = dist.new_group(backend="gloo")
        self._vote: tuple[dist.Work, Tensor] | None = None
        self._whole_parameters: list[nn.Parameter] = []

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    # --- reductions -------------------------------------------------------------------------------------------------

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks; the backward pass is the identity (nn/ranks.py)."""
        found: Tensor = _Mean.apply(values, self.world_size)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, without a gradient."""
        total = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def gather(self, values: Tensor) -> Tensor:
        """Values of all ranks, (world_size, ...), without a gradient."""
        mine = values.detach().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(parts, mine)
        return torch.stack(parts)

    # --- agreements -------------------------------------------------------------------------------------------------

    def agree(self, wish: int) -> int:
        """The largest wish of the step before: it was on its way while this step was computed, so nobody waited.

        After a granted wish nothing is on its way, so that what was wished once is not granted twice.
        """
        granted = self._collected()
        if granted == GO_ON:
            flag = torch.tensor(wish, dtype=torch.int32)
            work = dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._wishes, async_op=True)
            assert work is not None
            self._vote = (work, flag)
        return granted

    def _collected(self) -> int:
        if self._vote is None:
            return GO_ON
        work, flag = self._vote
        work.wait()
        self._vote = None
        return int(flag)

    def from_first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, sent to all; what it raises is raised on all."""
        box: list[Any] = [None, None]
        if self.is_first:
            try:
                box[0] = make()
            except Exception as failure:
                box[1] = failure
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        value, error = box
        if error is not None:
            raise error
        made: T = value
        return made

    def has_lost(self, error: BaseException) -> bool:
        """Whether a collective broke off; torch's own errors have a type, gloo's can be told by their text alone."""
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())

    def close(self) -> None:
        """Wait for what is on its way, and leave together."""
        self._collected()
        dist.barrier(group=self._wishes)
        dist.destroy_process_group()

    # --- model and optimizer ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def place(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> nn.Module:
        """Broadcast rank 0's weights and optimizer state, then wrap (ddp) or keep a part of each (fsdp)."""
        join(model, self)
        for tensor in [*model.parameters(), *model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        self._broadcast_state(optimizer)
        if self.sharding == "fsdp":
            self._shard(model, optimizer, device)
            return model
        model.to(device)
        move(optimizer, device)
        with warnings.catch_warnings():
            # torch 2.13 names the option anew; the new name is unknown to 2.11. A router's buffer differs by rank.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                init_sync=False,
                # A guide that is not drawn takes no part in a step.
                find_unused_parameters=any(True for _ in guides(model)),
            )

    @contextmanager
    def without_sync(self, forward: nn.Module) -> Iterator[None]:
        """Gradients stay whole and with this rank, also under fsdp, until a backward pass outside of it."""
        if isinstance(forward, DistributedDataParallel):
            with forward.no_sync():
                yield
            return
        assert isinstance(forward, FSDPModule)
        forward.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            forward.set_requires_gradient_sync(True)

    def _broadcast_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Rank 0 may have read a checkpoint; the others know the shapes of its state only from it."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        shapes = self.from_first(
            lambda: [
                {key: (value.shape, value.dtype) for key, value in optimizer.state.get(parameter, {}).items()}
                for parameter in parameters
            ]
        )
        for parameter, entries in zip(parameters, shapes, strict=True):
            for key, (shape, dtype) in entries.items():
                if not self.is_first:
                    optimizer.state[parameter][key] = torch.empty(shape, dtype=dtype)
                dist.broadcast(optimizer.state[parameter][key], src=0)

    def _shard(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """FSDP2, unit by unit; the optimizer, made for whole parameters, is given the sharded ones instead."""
        mesh = init_device_mesh(device.type, (self.world_size,))
        before: dict[str, Tensor] = dict(model.named_parameters())
        # A scalar cannot be cut: every rank keeps it, and clip() averages its gradient.
        self._whole_parameters = [parameter for parameter in model.parameters() if parameter.dim() == 0]
        for unit in units(model):
            fully_shard(unit, mesh=mesh, ignored_params=set(self._whole_parameters))
        for scalar in self._whole_parameters:
            scalar.data = scalar.data.to(device)
        after = dict(model.named_parameters())
        replaced = {old: after[name] for name, old in before.items()}
        for group in optimizer.param_groups:
            group["params"] = [replaced[parameter] for parameter in group["params"]]
        for old, values in list(optimizer.state.items()):
            del optimizer.state[old]
            optimizer.state[replaced[old]] = {
                key: _like(replaced[old], value, mesh, device) for key, value in values.items()
            }

    def clip(self, model: nn.Module, limit: float) -> Tensor:
        """Clip by the norm of all gradients, whole ones and parts of all ranks alike."""
        if self.sharding == "ddp":
            return nn.utils.clip_grad_norm_(model.parameters(), limit)
        whole = self._whole_parameters
        sharded = [parameter for parameter in model.parameters() if isinstance(parameter, DTensor)]
        for parameter in whole:
            assert parameter.grad is not None
            parameter.grad = self.mean(parameter.grad)
        # Sharded and whole gradients cannot be stacked; the norm of both norms is that of all.
        # A guide that was not drawn has no gradient.
        with_one = ([p for p in some if p.grad is not None] for some in (sharded, whole))
        norms = [_whole(nn.utils.get_total_norm([_gradient(p) for p in some])) for some in with_one if some]
        norm = torch.stack(norms).norm() if len(norms) > 1 else norms[0]
        for some in (sharded, whole):
            nn.utils.clip_grads_with_norm_(some, limit, norm)
        return norm

    def whole(self, state: T) -> T:
        """Gather sharded tensors, one after another, into the memory of rank 0."""
        if isinstance(state, DTensor):
            gathered = state.full_tensor()
            return gathered.cpu() if self.is_first else torch.empty(0)  # type: ignore[return-value]
        if isinstance(state, dict):
            return type(state)((key, self.whole(value)) for key, value in state.items())
        return state


class _Mean(torch.autograd.Function):
    """Mean over the ranks forwards, identity backwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, world_size: int) -> Tensor:
        total = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.div_(world_size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def meet(device: torch.device) -> None:
    """Join the processes that torchrun started; on a GPU node each takes the GPU of its local rank."""
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def units(model: nn.Module) -> Iterator[nn.Module]:
    """What FSDP gathers at a time: the blocks (entries of a list that is a child of the model), then the rest."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
    yield model


def _like(parameter: Tensor, value: Tensor, mesh: DeviceMesh, device: torch.device) -> Tensor:
    """A value of the optimizer, whole on every rank, sharded as its parameter is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(device), mesh, parameter.placements, src_data_rank=None)
    return value.to(device)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
