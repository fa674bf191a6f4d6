"""Does the best rate stay as the width grows, on images (arXiv 2406.06248, figure 2b)?"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from structlin.drawing.drawing import Drawing

from . import learning_rates

STUDY = "rate_landscape"
LAWS = False


def draw(runs: pd.DataFrame) -> Drawing:
    """The landscape of the regression, of these runs."""
    found = learning_rates.draw(runs)
    # Losses of images span more than those of the regression, and there are more structures than a row has room for.
    panels = tuple(replace(panel, y_most=None) for panel in found.panels)
    caption = found.caption.replace(f", and losses above {learning_rates.SHOWN:g} times the lowest leave the panel", "")
    return replace(
        found,
        name="rate-landscape",
        title="Learning-rate landscape, on images",
        caption=caption,
        panels=panels,
        columns=3,
    )
