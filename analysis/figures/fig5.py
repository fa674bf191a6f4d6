"""Do the structures rank alike on the other tasks? Next pixel and regression, as figure 4.

Source: arXiv 2410.02117, figure 5.
"""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing
from structlin.laws.approaches.laws import Laws

from .fig4 import taxonomy_drawing


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """The three taxonomy panels of the task that the runs belong to."""
    task = str(runs["task"].iloc[0])
    return taxonomy_drawing(f"fig5-{task}", f"{task.capitalize()}: frontiers of structures", runs, laws)
