"""Who trains the runs of a sweep, and on what? This machine (``local``), or a SLURM cluster by a site's profile."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError

ANSWER_SECONDS = 10

GPU_MEMORY_GB = {"v100": 32, "a40": 48, "l40s": 48, "a100": 80, "a100-40": 40, "a100-80": 80, "h100": 80, "h200": 141}
GPU_MEMORY_GB |= {"b200": 192}
"""Memory of GPUs by ``launch.gpu_type``, as their vendor says it; a100 is taken for the larger one."""


@dataclass(frozen=True)
class LocalLaunch:
    """The runs are trained by this command, on this machine."""

    name: str = "local"
    workers: int = 0
    """Training processes side by side; 0: one per GPU of CUDA_VISIBLE_DEVICES, or one per CPU core."""
    max_hours: float = 8.0
    """A bill above this asks on a terminal and is refused elsewhere."""
    canary: bool = False
    """Whether one run goes first, and the rest begins when it has ended well."""
    same_code: bool = False
    """Whether a run may only go on with the code and the torch version that it was begun with."""
    gpu_memory_gb: float = 0.0
    """Memory of a GPU; 0: by its name, where one is here."""

    def __post_init__(self) -> None:
        at_least("launch.workers", self.workers, 0)
        _positive("launch.max_hours", self.max_hours)

    @property
    def memory_of_gpu_gb(self) -> float:
        """Memory of a GPU, as far as it was said."""
        return self.gpu_memory_gb


@dataclass(frozen=True)
class SlurmLaunch:
    """The runs are submitted to SLURM as arrays, by the profile of a site (configs/launch/slurm*.yaml)."""

    name: str
    """The profile; measured speeds are kept under it."""
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    options: tuple[str, ...] = ()
    """Further options of sbatch, as "name=value" or "name"."""
    setup: tuple[str, ...] = ()
    """Lines of shell before Python starts: modules, environments."""
    python: str | None = None
    """The interpreter on a compute node; null: the one that submits."""
    gpus: int = 1
    """GPUs of an array element on a node; 0 on nodes without them."""
    gpu_type: str | None = None
    """Kind of GPU as the site's gres calls it (a100: asked for as gpu:a100:1); null: any, as ``constraint`` says."""
    gpu_memory_gb: float | None = None
    """Memory of a GPU; null: by ``gpu_type``. Where it is known the bill says what fits."""
    cpus_per_gpu: int = 8
    """CPU cores asked for with each GPU; without GPUs an element asks for ``threads`` a run."""
    runs_per_gpu: int = 1
    """Runs side by side on a GPU (0: as many as fit its memory, at most four); without GPUs: in an element."""
    gpus_per_run: int = 1
    """Ranks of one run; above 1 it is trained by torchrun over ``nodes`` nodes (without GPUs, by processes)."""
    nodes: int = 1
    """Nodes over which the ranks of one run are spread."""
    time_minutes: int | None = None
    """Time limit of an element; null: by the bill."""
    max_minutes: int = 1440
    """No element asks for more; a longer run is requeued at its warning and goes on."""
    min_minutes: int = 10
    """Short runs queue one after another in an element until it lasts about so long."""
    memory_gb: int | None = None
    """Memory of an element on a node; null: by the ledger."""
    signal_seconds: int = 120
    """Warning before the time limit: enough to save a checkpoint."""
    max_running: int = 0
    """Elements of a submission that run at once; 0: as many as SLURM lets."""
    max_retries: int = 3
    """Crashes after which a run is left alone until retry=failed."""
    grow_on_retry: float = 1.5
    """What ran out of time or memory is submitted again with so many times more."""
    max_hours: float = 10_000.0
    """Hours of GPUs (of elements, without GPUs) that may be asked for without asking on a terminal."""
    gres: str | None = None
    """GPUs by their type, such as gpu:a100:{gpus}, in place of --gpus-per-node."""
    memory_by: str = "node"
    """node: --mem; cpu: --mem-per-cpu; none: a site that gives memory with the cores."""
    clusters: str | None = None
    """The cluster to submit to, where one login node serves several (sbatch -M); of "a,b" sbatch takes the sooner."""
    requeue: bool = True
    """Whether the site lets jobs be requeued; where not, the same command submits again what was saved."""
    srun_args: tuple[str, ...] = ()
    """Further words for srun: ["--container-image=/images/torch.sqsh"]."""
    container: str | None = None
    """Words before Python: "apptainer exec --nv --bind /scratch /images/torch.sif"."""
    canary: bool = False
    """Whether one run goes first, and the rest begins when it has ended well."""
    same_code: bool = False
    """Whether a run may only go on with the code and the torch version that it was begun with."""

    def __post_init__(self) -> None:
        for name in ("gpus", "runs_per_gpu", "max_running", "max_retries", "signal_seconds", "min_minutes"):
            at_least(f"launch.{name}", getattr(self, name), 0)
        for name in ("cpus_per_gpu", "gpus_per_run", "nodes", "max_minutes"):
            at_least(f"launch.{name}", getattr(self, name), 1)
        for name in ("time_minutes", "memory_gb"):
            if getattr(self, name) is not None:
                at_least(f"launch.{name}", getattr(self, name), 1)
        if self.gpus_per_run % self.nodes:
            raise UserError(
                f"launch.gpus_per_run = {self.gpus_per_run} ranks cannot be spread evenly over launch.nodes = "
                f"{self.nodes}"
            )
        if self.gpus_per_run > 1 and self.runs_per_gpu > 1:
            raise UserError(
                f"launch.runs_per_gpu = {self.runs_per_gpu} shares a GPU among runs and launch.gpus_per_run = "
                f"{self.gpus_per_run} spreads one over several; give one of them"
            )
        one_of("launch.memory_by", self.memory_by, ("node", "cpu", "none"))
        if not self.grow_on_retry > 1:
            raise UserError(f"launch.grow_on_retry = {self.grow_on_retry} must be above 1")
        _positive("launch.max_hours", self.max_hours)

    @property
    def own_options(self) -> dict[str, str | bool]:
        """``options`` by name."""
        parts = (option.lstrip("-").partition("=") for option in self.options)
        return {name: value if value else True for name, _, value in parts}

    @property
    def cluster_names(self) -> list[str]:
        """The clusters that sbatch may choose from; none: the login node's own."""
        options = self.own_options
        given = self.clusters or options.get("clusters") or options.get("cluster") or options.get("M") or ""
        given = given or os.environ.get("SBATCH_CLUSTERS", "")
        return [name.strip() for name in str(given).split(",") if name.strip()]

    @property
    def memory_of_gpu_gb(self) -> float:
        """Memory of a GPU, as given or by its kind; 0 where it is not known."""
        if self.gpu_memory_gb is not None:
            return self.gpu_memory_gb
        return float(GPU_MEMORY_GB.get((self.gpu_type or "").lower(), 0))

    @property
    def is_parallel(self) -> bool:
        """Whether one run takes several ranks."""
        return self.gpus_per_run > 1

    @property
    def gpus_per_node(self) -> int:
        """GPUs of an element on each of its nodes."""
        return self.gpus_per_run // self.nodes if self.is_parallel and self.gpus else self.gpus

    @property
    def lanes(self) -> int:
        """Runs of an element side by side."""
        return 1 if self.is_parallel else max(1, self.gpus) * max(1, self.runs_per_gpu)

    @property
    def speed_key(self) -> str:
        """The name under which speeds measured by this profile are kept: packed runs are slower, ranks faster."""
        lanes = self.lanes if self.runs_per_gpu else "as many as fit"
        return f"launch={self.name}, {lanes} side by side, {self.gpus_per_run} ranks"


LaunchConfig = LocalLaunch | SlurmLaunch


@dataclass(frozen=True)
class Action:
    """What is to be done with a sweep: by default it is trained."""

    retry: str | None = None
    """failed: what was given up after ``max_retries`` crashes is tried again."""
    cancel: bool = False
    """Cancel what waits or runs."""
    status: bool = False
    """Show how far it is."""
    watch: bool = False
    """Keep showing it until everything has ended."""

    def __post_init__(self) -> None:
        if self.retry is not None:
            one_of("retry", self.retry, ("failed",))
        if sum((self.retry is not None, self.cancel, self.status or self.watch)) > 1:
            raise UserError("retry=, cancel= and status= are different wishes; give one of them")

    @property
    def trains(self) -> bool:
        """Whether missing runs are to be trained."""
        return not (self.cancel or self.status or self.watch)


def launch_kind(option: str) -> type[LocalLaunch] | type[SlurmLaunch]:
    """The kind of an option of the group ``launch``: slurm and slurm_<site>, else local."""
    return SlurmLaunch if option.split("_")[0] == "slurm" else LocalLaunch


def automatic() -> str:
    """What launch=auto means here: slurm where a controller answers, else local."""
    if shutil.which("sbatch") is None or shutil.which("scontrol") is None:
        return "local"
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "local"
    return "slurm" if done.returncode == 0 else "local"


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"{name} = {value} must be above 0")
