"""How fast did runs train on this cluster? Measured where they ran: the journals of runs submitted by the same profile.

Nothing is probed on a login node, which has other hardware. The lowest of a few medians is kept, so that the time
asked for suffices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from structlin.config.request import Site
from structlin.launch.reconcile import JobState
from structlin.launch.slurm.submissions import Submission
from structlin.runs.job import Job
from structlin.runs.speeds import Throughputs, shape_key

MOST_JOURNALS = 3
"""Journals read for one shape."""


def harvest(states: Sequence[JobState[Job]], records: Sequence[Submission], site: Site) -> int:
    """Keep the speed of every shape that this profile has trained and nobody has measured; how many there were."""
    throughputs = Throughputs(site.runs, site.machine)
    trained = {
        run for record in records if record.speed_key == site.machine for wanted in record.elements for run in wanted
    }
    found: dict[str, list[tuple[JobState[Job], float]]] = {}
    for state in states:
        if state.step == 0 or state.job.run_id not in trained:
            continue
        if throughputs.find(state.job.science, site.placement) is not None:
            continue
        several = found.setdefault(shape_key(state.job.science), [])
        if len(several) < MOST_JOURNALS and (speed := _speed(state)) is not None:
            several.append((state, speed))
    measured = [min(several, key=lambda pair: pair[1]) for several in found.values() if several]
    for state, speed in measured:
        throughputs.keep(state.job.science, site.placement, speed)
    return len(measured)


def _speed(state: JobState[Job]) -> float | None:
    """Tokens a second, the median over the rows of a journal; the first row holds the start and is left out."""
    speeds = [row.get("tokens_per_second") for row in state.folder.journal.rows("train")[1:]]
    good = [float(speed) for speed in speeds if isinstance(speed, int | float) and math.isfinite(speed) and speed > 0]
    return median(good) if good else None
