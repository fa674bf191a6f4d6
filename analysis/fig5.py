"""Do the structures rank alike on the other tasks? Next pixel and regression, as figure 4.

Source: arXiv 2410.02117, figure 5.
"""

from __future__ import annotations

import pandas as pd

from analysis.curves import without_law
from analysis.drawing import Drawing
from analysis.fig4 import taxonomy_panels
from structlin.laws.fit import Laws

STUDY = "regression"
UNITS = {"regression": "mean squared error", "pixels": "nats per pixel"}


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """The three taxonomy panels of the task that the runs belong to."""
    task = str(runs["task"].iloc[0])
    return Drawing(
        name=f"fig5-{task}",
        title=f"{task.capitalize()}: frontiers of structures",
        caption=(
            f"As figure 4, on task={task} ({laws.points.choices['runs']} runs): coloured by omega, by psi where "
            "omega = 0, and by nu where psi = 1 too. Dense as black triangles; fitted laws dashed."
        ),
        panels=taxonomy_panels(runs, laws, UNITS.get(task, "loss")),
        missing=without_law(laws, laws.points.variants),
    )
