"""What is compared? Arms: a structure with its mixture, at every width; the seeds are those of one arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from structlin.config.request import SweepRequest, Template
from structlin.drawing.names import short
from structlin.structure import Theta, factorise
from structlin.structure.naming import label_of

YARDSTICK = "dense"
"""The variant that goes to the top in any case: multipliers are against it."""
AXES = ("omega", "psi", "nu")
REFERENCE_WIDTH = 256
"""Realised exponents are those of a square layer of this width."""


@dataclass(frozen=True)
class Arm:
    """One of those compared."""

    template: Template
    """Under the first seed."""
    seeds: tuple[int, ...]
    origin: str = "asked"
    """asked, or proposed: by the surrogate."""

    @property
    def name(self) -> str:
        """The key that laws group by."""
        return self.template.science.variant

    @property
    def is_yardstick(self) -> bool:
        """Whether it is plain dense."""
        return self.name == YARDSTICK

    @property
    def is_plain(self) -> bool:
        """Whether it has no experts."""
        return self.template.science.moe.kind == "none"

    @property
    def theta(self) -> Theta:
        """Of its structure; dense where experts replace that."""
        return Theta.parse(self.template.science.structure.theta)

    def place(self) -> tuple[float, ...]:
        """AXES by the exponents that rounding realises at ``REFERENCE_WIDTH``: coefficients and divisors are inside."""
        return place_of(self.theta, self.template.science.structure.rounding)

    def with_seed(self, seed: int) -> Template:
        """The template under one of the seeds."""
        return replace(self.template, science=replace(self.template.science, seed=seed))


def place_of(theta: Theta, rounding: str) -> tuple[float, ...]:
    """AXES of a theta as realised at ``REFERENCE_WIDTH``."""
    found = factorise(theta, REFERENCE_WIDTH, REFERENCE_WIDTH, rounding).taxonomy
    return tuple(float(getattr(found, axis)) for axis in AXES)


def arms_of(request: SweepRequest) -> tuple[Arm, ...]:
    """The arms of a request, in its order: templates that differ in their seed alone are one."""
    first: dict[Template, list[int]] = {}
    for template in request.templates:
        key = replace(template, science=replace(template.science, seed=0))
        first.setdefault(key, []).append(template.science.seed)
    # Lines that name no seeds of their own have those of the command line: every arm has the same.
    return tuple(
        Arm(replace(one, science=replace(one.science, seed=seeds[0])), tuple(seeds)) for one, seeds in first.items()
    )


def names_of(arms: Sequence[Arm]) -> list[str]:
    """Names without what all of them share; a theta that no family writes is theta2-1a2b3c4d, as those of three are."""
    names = [arm.name for arm in arms]
    return [_labelled(arm, short(arm.name, names)) for arm in arms]


def _labelled(arm: Arm, name: str) -> str:
    text = str(arm.theta)
    return name.replace(text, label_of(arm.theta), 1) if name.startswith(text) else name
