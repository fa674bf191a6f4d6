"""What does ``start=`` ask for? A run of the store at a step, or another structure that is trained first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from structlin.config.identity import science_from
from structlin.config.nested import NONE
from structlin.config.science import Science, StartConfig
from structlin.config.structure import StructureConfig
from structlin.config.structured_ffn import published_init
from structlin.errors import UserError
from structlin.host.files import read_json
from structlin.structure import Theta, lookup, name_of
from structlin.structure.families import output_order_of

CALIBRATION = 65_536
"""Tokens of an aware conversion, where nothing is said."""

FREE = ("structured", "biases", "zero_start", "dtype", "base_width", "base_ffn_expansion", "weight_norm_experts")
"""Fields of a model in which parent and child may differ, and ``init...``: which linears are structured, how they start
and learn."""


def started(science: Science, start: Mapping[str, Any], runs: Path, published: bool = False) -> Science:
    """The science that begins as ``start`` (the group of a config) says. UserError for what cannot be.

    ``published``: a parent that is trained first is drawn as was published for its own structure, not as the child is.
    """
    run, structure = start["run"], start["structure"]
    if run is not None and structure is not None:
        raise UserError(f"start={run} and start.structure={structure} both say what a run starts from; give one")
    given = [f"start.{key} = {start[key]}" for key in ("share", "steps") if start[key] is not None]
    if run is None and structure is None:
        if given:
            raise UserError(f"{' and '.join(given)} of what? Say start.structure=dense, or start=runs/ID@STEP")
        return science
    how = StartConfig(science, 0, None, str(start["conversion"]), _tokens(start["calibration_tokens"]))
    if run is not None:
        if given:
            raise UserError(f"start={run} names its step after the @, so {' and '.join(given)} say nothing; leave out")
        parent, step = _run(str(run), runs)
        wide = science.at_width(parent.model.d_model)
        check_conversion(parent, wide)
        return replace(wide, start=replace(how, parent=parent, step=step))
    if len(given) != 1:
        raise UserError(
            f"start.structure={structure} is trained for start.share=.5 of all FLOPs, or for start.steps=1000; "
            f"{'give one' if given else 'say which'}"
        )
    parent = replace(science, structure=_structure(str(structure), science), nested=NONE)
    if published:
        name = name_of(Theta.parse(parent.structure.theta), parent.structure.output_order)
        parent = replace(parent, model=replace(parent.model, init=published_init(name)))
    if (parent.structure, parent.nested) == (science.structure, science.nested):
        # What goes on as it was is no other run: it stands beside those that change.
        return science
    check_conversion(parent, science)
    if start["share"] is not None:
        return replace(science, start=replace(how, parent=parent, share=_number("start.share", start["share"])))
    return replace(science, start=replace(how, parent=parent, step=_tokens(start["steps"], "start.steps")))


def check_conversion(parent: Science, child: Science) -> None:
    """UserError, in one line, where no conversion leads from one Science to the other."""
    for whose, science in (("parent", parent), ("child", child)):
        if science.moe.kind != "none":
            kind = science.moe.kind
            raise UserError(f"the {whose} is a mixture (moe={kind}), which no conversion knows; use moe=none")
        if science.model.weight_norm != "none":
            raise UserError(
                f"the {whose} has model.weight_norm={science.model.weight_norm}, and RMS caps do not fit converted "
                "weights; use model.weight_norm=none"
            )
    pairs = [("task", parent.task, child.task), ("model", parent.model.name, child.model.name)]
    pairs += [("data.tokenizer", parent.data.tokenizer, child.data.tokenizer)]
    if parent.model.name == child.model.name:
        names = [field.name for field in fields(parent.model)]
        names = [name for name in names if name not in FREE and not name.startswith("init")]
        pairs += [(f"model.{name}", getattr(parent.model, name), getattr(child.model, name)) for name in names]
    for key, before, after in pairs:
        if before != after:
            raise UserError(
                f"a conversion changes the structure alone, but {key} is {before} of the parent and {after} of the "
                f"child; use {key}={before}"
            )


def _structure(name: str, science: Science) -> StructureConfig:
    """Of the parent: by a name of the catalogue or as a theta."""
    theta = Theta.parse(name) if re.search(r"[|=,]", name) else lookup(name)
    return replace(science.structure, theta=str(theta), output_order=output_order_of(name), ranks="none")


def _run(text: str, runs: Path) -> tuple[Science, int]:
    """The science and the step of runs/ID@STEP, or of ID@STEP in the store of the command."""
    place, _, step = text.rpartition("@") if "@" in text else (text, "", "")
    folder = Path(place) if "/" in place else runs / place
    if folder.parent.resolve() != runs.resolve():
        raise UserError(f"start={text} lies in another store than runs={runs}, where its weights are looked for")
    try:
        science = science_from(read_json(folder / "config.json"))
    except (OSError, UserError) as error:
        raise UserError(f"start={text}: no run can be read in {folder} ({error})") from None
    kept = sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("attempts/*/checkpoints/step-*.pt"))
    if not kept:
        raise UserError(f"start={text}: {folder} holds no checkpoint; train it first")
    if not step:
        return science, kept[-1]
    if not step.isdigit() or int(step) not in kept:
        raise UserError(
            f"start={text}: {folder} has no checkpoint of step {step}; it keeps "
            f"{', '.join(map(str, dict.fromkeys(kept)))}"
        )
    return science, int(step)


def _tokens(value: Any, key: str = "start.calibration_tokens") -> int:
    if value is None:
        return CALIBRATION
    number = _number(key, value)
    if not number.is_integer() or number < 1:
        raise UserError(f"{key} = {value!r} should be a whole number of at least 1")
    return int(number)


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key} = {value!r} should be a number")
    return float(value)
