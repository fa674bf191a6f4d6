"""Which run is it that has so many steps, or tokens? Where it starts from another one, also: after how many of its?"""

from __future__ import annotations

from dataclasses import replace

from structlin.anatomy.compute import flops_between, steps_for_flops
from structlin.anatomy.guide import matched_share
from structlin.config.request import Template
from structlin.config.science import Science
from structlin.planning.horizon import steps_for_tokens


def steps_of(template: Template, d_model: int, tokens: float) -> int:
    """Whole steps of a run on so many fresh tokens; one that is matched to the dense model has more, and reads on."""
    trunk = template.trunk(d_model)
    steps = steps_for_tokens(trunk, tokens)
    return steps if trunk.guide.match == "none" else round(steps / (1.0 - matched_share(trunk)))


def run_of(template: Template, d_model: int, steps: int) -> Science:
    """The run at a width that is ``steps`` long; a share that its parent takes of all FLOPs becomes steps of that."""
    science = template.run(d_model, steps)
    start = science.start
    if start.parent is None or start.share is None:
        return science
    parent = start.parent
    inherited = start.share / (1.0 - start.share) * flops_between(science, 0, steps)
    return replace(science, start=replace(start, step=max(1, steps_for_flops(lambda _: parent, inherited))))
