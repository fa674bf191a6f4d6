"""How much data does a plan need? The tokens of the longest run of each recipe, for data that are made to measure."""

from __future__ import annotations

from collections.abc import Iterable

from structlin.data import DataRecipe
from structlin.runs.job import Job


def data_needs(jobs: Iterable[Job]) -> dict[DataRecipe, int]:
    """Tokens (samples) of the longest job of each recipe, in the order of the jobs."""
    needs: dict[DataRecipe, int] = {}
    for job in jobs:
        recipe = job.science.data
        needs[recipe] = max(needs.get(recipe, 0), job.target_step * job.science.optim.batch_tokens)
    return needs
