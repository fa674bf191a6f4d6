"""Where and how is a run executed? Nothing here changes what is asked for, so none of it enters an identity."""

from __future__ import annotations

from dataclasses import dataclass

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError

MOST_THREADS = 4096


@dataclass(frozen=True)
class Placement:
    """Where and how a run is executed. Bitwise repetition also needs equal threads, device and torch version."""

    device: str = "auto"
    """auto (CUDA where there is one), cpu or cuda."""
    threads: int = 1
    """CPU threads of a training process."""
    compile: str = "auto"
    """torch.compile the model: true, false, or auto (on CUDA, where a step waits for memory and for Python); combine:
    and launch kernels that are independent of each other as one (Inductor's combo kernels)."""
    graphs: str = "auto"
    """Launch a whole step of one process on a GPU at once, as a CUDA graph: true, false, or auto (where it can be)."""
    deterministic: bool = False
    """Only algorithms that give equal bits for equal inputs on one GPU; slower attention. CPUs need none of it."""
    micro_tokens: str = "auto"
    """Most tokens that a process computes at a time; gradients of such parts of a batch are added up in their order.
    auto: a whole batch, or what ``fit`` picks. The losses are the same but for rounding."""
    fit: str = "none"
    """auto: ``recompute`` and ``micro_tokens`` are picked so that a step fits the memory of the GPU; none: as given."""
    gpu_memory_gb: float = 0.0
    """Memory of a GPU as its vendor says it (80), which runs are to fit; 0: that of the GPU that is there."""
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
        at_least("threads", self.threads, 1, MOST_THREADS)
        at_least("log_steps", self.log_steps, 1)
        one_of("compile", self.compile, ("auto", "true", "false", "combine"))
        one_of("graphs", self.graphs, ("auto", "true", "false"))
        one_of("fit", self.fit, ("none", "auto"))
        if self.micro_tokens != "auto":
            if not self.micro_tokens.isdecimal():
                raise UserError(f"micro_tokens = '{self.micro_tokens}' should be auto or a number such as 16384")
            at_least("micro_tokens", int(self.micro_tokens), 1)
        if not self.gpu_memory_gb >= 0:
            raise UserError(f"gpu_memory_gb = {self.gpu_memory_gb} must be at least 0")
        if not self.checkpoint_seconds > 0:
            raise UserError(f"checkpoint_seconds = {self.checkpoint_seconds} must be above 0")

    def as_it_runs(self, machine: str) -> str:
        """The name under which speeds of a machine are kept: what makes a run slower belongs to it."""
        words = [machine]
        words += ["recompute"] if self.recompute else []
        words += ["deterministic"] if self.deterministic else []
        words += [f"micro_tokens={self.micro_tokens}"] if self.micro_tokens != "auto" else []
        words += ["fit"] if self.fit != "none" else []
        return ", ".join(words)

    def most_micro_tokens(self) -> int | None:
        """``micro_tokens`` as a number; None: a whole batch."""
        return None if self.micro_tokens == "auto" else int(self.micro_tokens)

    def compiles(self, device: str) -> bool:
        """Whether a model on a device of this type is compiled."""
        return device == "cuda" if self.compile == "auto" else self.compile != "false"
