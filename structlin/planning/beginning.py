"""Which run is it that has so many steps? Where it starts from another one, also: after how many of its steps?"""

from __future__ import annotations

from dataclasses import replace

from structlin.anatomy.compute import flops_between, steps_for_flops
from structlin.config.request import Template
from structlin.config.science import Science


def run_of(template: Template, d_model: int, steps: int) -> Science:
    """The run at a width that is ``steps`` long; a share that its parent takes of all FLOPs becomes steps of that."""
    science = template.run(d_model, steps)
    start = science.start
    if start.parent is None or start.share is None:
        return science
    parent = start.parent
    inherited = start.share / (1.0 - start.share) * flops_between(science, 0, steps)
    return replace(science, start=replace(start, step=max(1, steps_for_flops(lambda _: parent, inherited))))
