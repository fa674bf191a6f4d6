"""How does a job become a trained run? Take its folder, find where to go on, train, publish, and say how it ended."""

from __future__ import annotations

import contextlib
import errno
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from structlin.anatomy.compute import flops_until
from structlin.anatomy.guide import guide_steps
from structlin.anatomy.ledger import Ledger, ledger
from structlin.anatomy.memory import advice, fitted, peak
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, one_line
from structlin.host.speech import say
from structlin.host.storage import storage_error
from structlin.runs import checkpoints, measures
from structlin.runs.attempt import Attempt, Superseded
from structlin.runs.claim import Claim
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store, digest_of
from structlin.runs.tracking.mirror import open_mirror
from structlin.tasks.catalogue import open_task
from structlin.training import checkpoint
from structlin.training.beginning import begin_from_parent
from structlin.training.device import GB, gpu_bytes, pick_device, settle
from structlin.training.failures import DeadGpu, is_dead, is_out_of_gpu_memory, reason_of
from structlin.training.loop import Diverged, Interrupted, Trainer
from structlin.training.made import Made
from structlin.training.parts import parts_of
from structlin.training.provenance import provenance, unbuilt_kernels
from structlin.training.whole import whole_task
from structlin.training.world import ONE_PROCESS, World

BUSY = "busy"
"""Another process trains the run."""
BEREFT = "bereft"
"""Another rank of the run ended too early; the run itself is interrupted."""
SUPERSEDED = "superseded"
"""A newer attempt took the run from this process."""


def execute(
    job: Job,
    store: Store,
    data_root: Path,
    placement: Placement,
    should_stop: Callable[[], bool] = lambda: False,
    world: World = ONE_PROCESS,
    tell: Callable[[str], object] = say,
) -> str:
    """Train a job in its run folder; returns done, diverged, interrupted, failed, superseded, bereft or busy.

    Every ending is written to the attempt's status.json with its reason; what was trained before stays. A UserError
    (data not prepared, other data than before) is raised before anything is trained. A job whose result is published
    is done and writes nothing. ``tell`` hears why it failed where that cannot be written. Every process of the
    ``world`` calls this; the first takes the run and writes. DeadGpu, with the state, where the process can use its
    GPU no more.
    """
    folder = store.folder(job.science)
    claim = Claim(folder)
    with contextlib.ExitStack() as held:
        try:
            begun = world.from_first(lambda: _begin(job, claim, held))
            if isinstance(begun, str):
                return begun
            return _train(job, folder, begun, store, data_root, placement, should_stop, world)
        except Superseded as end:
            return _superseded(claim.attempt, end)
        except UserError as error:
            if claim.attempt is not None:
                with contextlib.suppress(OSError):
                    claim.attempt.set_status("failed", target_step=job.target_step, reason=one_line(error))
            raise
        except Exception as error:  # of whatever library: the run's status says what it was, and the others go on
            if not isinstance(error, OSError) and storage_error(error) is None:  # the log may lie on the full disk
                traceback.print_exc()
            if claim.attempt is not None and not claim.attempt.is_newest():
                state = _superseded(claim.attempt, error)
            elif world.has_lost(error):
                state = _bereft(job, claim.attempt, error)
            else:
                state = _failed(job, folder, claim.attempt, error, placement, world, tell)
            if is_dead(error):
                raise DeadGpu(state) from error
            return state


def _begin(job: Job, claim: Claim, held: contextlib.ExitStack) -> Attempt | str:
    """Take the run for as long as ``held`` lasts and begin an attempt; or how it stands, where that cannot be."""
    if _is_done(job, claim.folder):
        return "done"
    held.enter_context(claim)
    if not claim.is_free:
        return BUSY
    # Whoever held the run until now may have done the job.
    if _is_done(job, claim.folder):
        return "done"
    return claim.begin(job.science) or BUSY


def _is_done(job: Job, folder: RunFolder) -> bool:
    return folder.has_published(job.evaluations) and not folder.lacks(job.needed)


def _train(
    job: Job,
    folder: RunFolder,
    attempt: Attempt,
    store: Store,
    data_root: Path,
    placement: Placement,
    should_stop: Callable[[], bool],
    world: World,
) -> str:
    torch.manual_seed(job.science.seed)
    device = pick_device(placement)
    placement = world.from_first(lambda: _fitted(job, folder, placement, device, world))
    settle(device, placement, job.science)
    parts = parts_of(job.science, placement, world.world_size)
    task = open_task(job.science, data_root)
    first = Made(job, task, placement)
    unbuilt = unbuilt_kernels(task, first.model, device, whole_task(job.science))
    corpus = getattr(task, "corpus", None)
    record = provenance(device, placement, job.science, task.manifest_hash, unbuilt, world, corpus)
    world.from_first(lambda: _record_provenance(folder, attempt, record))
    evaluated = world.from_first(lambda: _evaluated(folder))
    start = world.from_first(lambda: _resume(job, attempt, store, first, evaluated))
    if start == 0 and job.science.start.parent is not None:
        world.from_first(lambda: begin_from_parent(job, store, attempt, task, first))
    world.from_first(lambda: _tell_start(job, attempt, start))
    with open_mirror(job.science, folder, placement) if world.is_first else contextlib.nullcontext(_ignore) as observe:

        def trained(made: Made, step: int) -> Trainer:
            """As far as this model goes."""
            return Trainer(
                job=job,
                attempt=attempt,
                task=task,
                model=made.model,
                forward=world.place(made.model, made.optimizer, device),
                optimizer=made.optimizer,
                device=device,
                placement=placement,
                observe=observe,
                should_stop=should_stop,
                evaluations=_evaluations(job, evaluated, start),
                world=world,
                parts=parts,
                step=step,
                is_guided=made.is_guided,
            )

        trainer = trained(first.at(start), start)
        state, reason = _outcome(trainer)
        if state == "done" and first.is_guided and trainer.step >= guide_steps(job.science):
            # The guides have gone: the model without them goes on from the checkpoint, as it would at another start.
            step = trainer.step
            del trainer
            world.from_first(lambda: _restore(attempt, first.at(step), step))
            trainer = trained(first.at(step), step)
            state, reason = _outcome(trainer)
        # Before the mirror closes: a dead network may hold that up, and what was trained stands by then.
        world.from_first(lambda: _tell_end(job, folder, attempt, trainer.step, state, reason))
    return state


def _restore(attempt: Attempt, made: Made, step: int) -> None:
    checkpoint.restore(checkpoints.path_of(attempt.checkpoints, step), made.model, made.optimizer)


def _evaluated(folder: RunFolder) -> set[int]:
    """Steps that need not be evaluated again; says how far older rows can be trusted."""
    journal = folder.journal
    if changed := journal.torn_lines():
        say(f"{folder.run_id}: {changed} torn or changed line(s) of its journal passed over")
    if unsealed := journal.unsealed_rows():
        say(f"{folder.run_id}: {unsealed} rows were written without a checksum and are believed")
    return {row["step"] for row in journal.evaluations()}


def _tell_start(job: Job, attempt: Attempt, step: int) -> None:
    attempt.resume_at(step)
    attempt.set_status("running", step=step, target_step=job.target_step)


def _tell_end(job: Job, folder: RunFolder, attempt: Attempt, step: int, state: str, reason: str) -> None:
    attempt.publish(make_result(job, folder, ledger(job.science), state))
    attempt.set_status(state, step=step, target_step=job.target_step, **({"reason": reason} if reason else {}))


def _ignore(row: dict[str, Any]) -> None:
    """The mirror of a rank that writes nothing."""


def _outcome(trainer: Trainer) -> tuple[str, str]:
    try:
        trainer.run()
    except Diverged as end:
        return "diverged", str(end)
    except Interrupted as end:
        return "interrupted", str(end)
    return "done", ""


def _fitted(job: Job, folder: RunFolder, placement: Placement, device: torch.device, world: World) -> Placement:
    """The placement with what ``fit`` picks for this GPU; a run that goes on keeps the parts it was begun in."""
    if device.type != "cuda" or placement.fit == "none":
        return placement
    for older in reversed(folder.provenance()):
        if older.get("fit") == "auto" and older.get("world_size") == world.world_size:
            return replace(placement, recompute=bool(older["recompute"]), micro_tokens=str(older["micro_tokens"]))
    found = fitted(job.science, placement, gpu_bytes(placement, device), ranks=world.world_size)
    if found.said:
        print(f"{job.run_id}: {found.said}", flush=True)
    return found.placement


def _failed(
    job: Job,
    folder: RunFolder,
    attempt: Attempt | None,
    error: BaseException,
    placement: Placement,
    world: World,
    tell: Callable[[str], object],
) -> str:
    """Record a failure as well as the disk allows; the journal and older checkpoints stand."""
    reason = reason_of(error, _way_out(job.science, placement, world) if is_out_of_gpu_memory(error) else "")
    if (broken := storage_error(error)) is not None:
        what = "no space left on the device" if broken.errno == errno.ENOSPC else broken.strerror
        place = broken.filename if broken.filename is not None else folder.path
        reason = f"storage: {what} of {place}; mend it and run the same command again"
    try:
        if attempt is not None:
            attempt.set_status("failed", target_step=job.target_step, reason=reason[:2000])
            return "failed"
    except OSError:
        pass
    tell(reason)
    return "failed"


def _way_out(science: Science, placement: Placement, world: World) -> str:
    """What to do about a GPU whose memory was full."""
    available = gpu_bytes(placement, torch.device("cuda"))
    needs = peak(science, placement, ranks=world.world_size).needed
    if needs > available:
        return f"a step {advice(science, placement, available, ranks=world.world_size)}"
    return f"a step needs {needs / GB:.3g} of {available / GB:.3g} GB, so others use the GPU: lower launch.runs_per_gpu"


def _bereft(job: Job, attempt: Attempt | None, error: BaseException) -> str:
    """Another rank has gone, for reasons that its own output names; what this one has to say is where to go on."""
    reason = f"another rank ended: {one_line(error)}"[:2000]
    say(f"{job.run_id} interrupted: {reason}")
    if attempt is not None:
        with contextlib.suppress(OSError):
            attempt.set_status("interrupted", target_step=job.target_step, reason=reason)
    return BEREFT


def _superseded(attempt: Attempt | None, error: BaseException) -> str:
    """Say so in what is left of the attempt; the rest of the run folder belongs to a newer one."""
    if attempt is not None and attempt.path.is_dir():
        with contextlib.suppress(OSError):
            attempt.set_status("superseded", reason=one_line(error))
    return SUPERSEDED


def _record_provenance(folder: RunFolder, attempt: Attempt, record: dict[str, Any]) -> None:
    """Write provenance.json. UserError where the run was begun on other data."""
    for older in folder.provenance():
        if older.get("data_manifest") != record["data_manifest"]:
            raise UserError(
                f"run {folder.run_id} was trained on other data (manifest {str(older.get('data_manifest'))[:12]}, now "
                f"{record['data_manifest'][:12]}); prepare the old data again, or use another store: runs=..."
            )
    attempt.set_provenance(record)


def _evaluations(job: Job, evaluated: set[int], start: int) -> frozenset[int]:
    """Steps to evaluate at: those wanted and missing, and again those that this attempt's rows will stand for."""
    return frozenset(
        {step for step in job.evaluations if step not in evaluated} | {step for step in evaluated if step > start}
    )


def _resume(
    job: Job,
    attempt: Attempt,
    store: Store,
    made: Made,
    evaluated: set[int],
) -> int:
    """Load the newest checkpoint before every missing evaluation and needed checkpoint; returns its step, or 0."""
    missing = [step for step in job.evaluations if step not in evaluated]
    missing += [step for step in job.needed if not checkpoints.path_of(attempt.checkpoints, step).exists()]
    latest = min(missing, default=job.target_step)
    for path in _candidates(job, attempt, store, latest):
        try:
            held = checkpoint.read(path)
            made.at(int(held["step"]))
            step = checkpoint.load(held, made.model, made.optimizer)
            if not checkpoint.has_checksum(path):
                say(f"{attempt.run_id}: {path.name} was written without a checksum and is believed")
            return step
        except Exception as error:  # a torn file can raise anything; an older one, or a fresh start, gives the same run
            say(f"{attempt.run_id}: cannot use {path.name} ({one_line(error)[:200]}); going back further")
            made.at(0, afresh=True)
            torch.manual_seed(job.science.seed)
    return 0


def _candidates(job: Job, attempt: Attempt, store: Store, latest: int) -> Iterator[Path]:
    """Checkpoints at or before a step, newest first: the attempt's own, and those of the trunk a cooldown leaves."""
    found = checkpoints.merged([attempt.checkpoints])
    if job.trunk is not None:
        for step, path in store.folder(job.trunk).checkpoints.items():
            if step <= job.science.schedule.cooldown_start:
                found.setdefault(step, path)
    for step in sorted(found, reverse=True):
        if step <= latest:
            yield found[step]


def make_result(job: Job, folder: RunFolder, costs: Ledger, state: str) -> dict[str, Any]:
    """What came out, for result.json. It holds no time and no machine, so equal runs have equal bytes."""
    evaluations = [
        {
            "step": row["step"],
            "tokens": row["tokens"],
            "val_loss": row["val_loss"],
            **measures.of_row(row),
            **({"in_guide": True} if row.get("in_guide") else {}),
            **({"rank_share": row["rank_share"]} if "rank_share" in row else {}),
        }
        for row in folder.journal.rank_evaluations()
    ]
    step = evaluations[-1]["step"] if evaluations else 0
    tokens = step * job.science.optim.batch_tokens
    return {
        "run_id": folder.run_id,
        "digest": digest_of(evaluations),
        "state": state,
        "step": step,
        "tokens": tokens,
        "macs_per_token": costs.macs_per_token,
        "params": costs.params,
        "training_flops": flops_until(job.science, step),
        "evaluations": evaluations,
    }
