"""Where and how is a run executed? Nothing here changes what is asked for, so none of it enters an identity."""

from __future__ import annotations

from dataclasses import dataclass

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError


@dataclass(frozen=True)
class Placement:
    """Where and how a run is executed. Bitwise repetition also needs equal threads, device and torch version."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    threads: int = 1
    """CPU threads of a training process."""
    compile: bool = False
    """torch.compile the training step."""
    recompute: bool = False
    """Keep the inputs of blocks alone for the backward pass and compute the blocks again: less memory, a quarter more
    time (measured), the same losses."""
    sharding: str = "auto"
    """How several ranks hold the weights of one run: ddp (each all of them), fsdp (each a part), or auto (fsdp where
    weights, optimizer and activations exceed the memory of a GPU)."""
    tracking: str = "auto"
    """auto (W&B where a key is configured), wandb, tensorboard or journal."""
    project: str = "structlin"
    """W&B project."""
    group: str = ""
    """W&B group: the sweep's name."""
    checkpoint_seconds: float = 120.0
    """Seconds between checkpoints of a running trajectory."""
    log_steps: int = 20
    """Steps between two rows of training loss in the journal."""

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("sharding", self.sharding, ("auto", "ddp", "fsdp"))
        one_of("tracking", self.tracking, ("auto", "wandb", "tensorboard", "journal"))
        at_least("threads", self.threads, 1)
        at_least("log_steps", self.log_steps, 1)
        if not self.checkpoint_seconds > 0:
            raise UserError(f"checkpoint_seconds = {self.checkpoint_seconds} must be above 0")

    def as_it_runs(self, machine: str) -> str:
        """The name under which speeds of a machine are kept: a run that recomputes is slower."""
        return f"{machine}, recompute" if self.recompute else machine
