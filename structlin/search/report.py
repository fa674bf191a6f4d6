"""What did a search find, and why? A record of plain values, its lines for a terminal, and its pages.

    {"arms": [{"name", "origin", "theta", "moe", "omega", "psi", "nu"}], "passed_over": [...],
     "target", "budget", "eta", "level", "spent", "total", "everything", "share", "over",
     "rungs": [{"rung", "flops", "runs", "training_flops", "done", "predictor", "scores": {name: {...}},
                "arms": [{"name", "measured", "predicted", "low", "high", "best", "ratio", "after"}],
                "proposals": [...]}],
     "winner": {"name", "predicted", "low", "high", "best", "measured",
                "multiplier": {"value", "low", "high", "better"}},
     "forecast": {"flops", "law", "arms": {name: {"loss", "low", "high"}}, "predictions", "data"}}

``after``: stays, top, or why an arm leaves: unlikely, budget, not measured. ``predicted`` is at the target; under the
predictor raw it is what was measured. ``ratio``: the predicted loss over the geometric mean of the rung's arms, and its
ends. ``better``: P that the winner needs less compute than dense.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from structlin.planning.bill import counted
from structlin.search import jointly
from structlin.search.arms import AXES, YARDSTICK, names_of
from structlin.search.course import Course, Rung
from structlin.search.forecast import foretold, joint_of
from structlin.search.predictors import DRAWS

Entry = dict[str, Any]
CONFIDENCE = 0.9


def record(course: Course) -> Entry:
    """Everything that a search has decided so far."""
    names = names_of(course.arms)
    arms = [
        {"name": name, "variant": arm.name, "origin": arm.origin, "theta": str(arm.theta),
         "moe": arm.template.science.moe.label, **dict(zip(AXES, arm.place(), strict=True))}
        for name, arm in zip(names, course.arms, strict=True)
    ]  # fmt: skip
    search = course.search
    return {
        "command": course.request.command, "confidence": CONFIDENCE,
        "target": search.target, "budget": course.budget, "eta": search.eta, "level": search.level,
        "spent": course.spent, "total": course.total, "everything": course.everything,
        "share": course.total / course.everything, "over": course.is_over,
        "arms": arms, "passed_over": [arm.name for arm in course.passed_over],
        "rungs": [_rung(course, rung, names) for rung in course.rungs],
        "ahead": [
            {"rung": k, "flops": course.steps.flops[k], "arms": course.steps.counts[k],
             "training_flops": course.expected[k]}
            for k in range(len(course.rungs), len(course.steps.flops))
        ],
        "winner": _winner(course, names), "forecast": foretold(course, names, CONFIDENCE),
    }  # fmt: skip


def _rung(course: Course, rung: Rung, names: Sequence[str]) -> Entry:
    entry: Entry = {
        "rung": rung.number, "flops": rung.flops, "runs": len(rung.jobs), "training_flops": rung.new_flops,
        "done": rung.done, "predictor": None, "scores": {}, "proposals": [],
        "arms": [{"name": names[number]} for number in rung.arms],
    }  # fmt: skip
    found = rung.forecast
    if found is None:
        return entry
    (low, high), ratios = found.interval(CONFIDENCE), found.ratios(CONFIDENCE)
    place = {int(arm): at for at, arm in enumerate(found.arms)}
    best = found.best
    arms = []
    for number in rung.arms:
        at = place.get(number)
        one: Entry = {
            "name": names[number],
            "measured": (rung.measured or {}).get(number),
            "after": _after(rung, number),
        }
        if at is not None:
            one |= {"predicted": math.exp(found.log_loss[at]), "low": float(low[at]), "high": float(high[at])}
            one |= {"best": float(best[at]), "ratio": [float(values[at]) for values in ratios]}
        arms.append(one)
    arms.sort(key=lambda one: one.get("predicted", math.inf))
    scores = {name: {"backtest": s.backtest, "error": s.error} for name, s in found.scores.items()}
    proposals = [_proposal(one.to_mapping(), course, names) for one in rung.proposals]
    return entry | {"predictor": found.predictor, "scores": scores, "arms": arms, "proposals": proposals}


def _proposal(one: Entry, course: Course, names: Sequence[str]) -> Entry:
    """A proposal with the names of the record for those of the laws."""
    called = {arm.name: name for arm, name in zip(course.arms, names, strict=True)}
    return one | {key: called.get(one[key], one[key]) for key in ("arm", "nearest")}


def _after(rung: Rung, number: int) -> str:
    if rung.promotion is None:
        return "top"
    return rung.promotion.leave.get(number, "stays")


def _winner(course: Course, names: Sequence[str]) -> Entry | None:
    """The chosen arm, and how much less compute it needs than dense."""
    number, rung = course.winner, course.rungs[-1]
    if number is None or rung.forecast is None:
        return None
    found = next(one for one in _rung(course, rung, names)["arms"] if one["name"] == names[number])
    return {key: value for key, value in found.items() if key != "after"} | {"multiplier": _multiplier(course, number)}


def _multiplier(course: Course, number: int) -> Entry | None:
    """C_dense(L) / C at the target; None without dense, or without a law."""
    base = next((at for at, arm in enumerate(course.arms) if arm.is_yardstick), None)
    joint, last = joint_of(course), course.rungs[-1].forecast
    if (
        base is None
        or joint is None
        or last is None
        or base == number
        or not {base, number} <= set(map(int, joint.arms))
    ):
        return None
    score = last.scores.get(last.predictor)
    more = 0.0 if score is None else score.misfit
    draws = jointly.multipliers(joint, number, base, course.search.target, more, DRAWS, np.random.default_rng(0))
    tail = 0.5 - 0.5 * CONFIDENCE
    low, middle, high = np.quantile(draws, [tail, 0.5, 1 - tail])
    return {"against": YARDSTICK, "value": float(middle), "low": float(low), "high": float(high),
            "better": float(np.mean(draws > 1))}  # fmt: skip


# --- for a terminal ---------------------------------------------------------------------------------------------------


def bill(course: Course, decided: bool = True) -> Iterator[str]:
    """The rungs with their arms, what they cost, and what everything at the top would.

    ``decided``: whether the arms of rungs that are done are listed too.
    """
    found = record(course)
    names = {arm["name"]: arm for arm in found["arms"]}
    whole = f"within {found['budget']:.3g} in all"
    yield f"{counted(len(names), 'arm')} compared at {found['target']:.3g} FLOPs a run, {whole}"
    for rung in found["rungs"]:
        state = f"decided by {rung['predictor']}" if rung["done"] else "to be trained"
        yield (
            f"rung {rung['rung']}: {counted(len(rung['arms']), 'arm')} to {rung['flops']:.3g} FLOPs a run, "
            f"{counted(rung['runs'], 'run')}, {rung['training_flops']:.3g} FLOPs; {state}"
        )
        for one in rung["arms"] if decided or not rung["done"] else ():
            yield f"  {_arm_said(one, names[one['name']])}"
    for rung in found["ahead"]:
        yield (
            f"rung {rung['rung']}: {counted(rung['arms'], 'arm')} to {rung['flops']:.3g} FLOPs a run, about "
            f"{rung['training_flops']:.3g} FLOPs; those of rung {rung['rung'] - 1} that may still be best, and dense"
            + ("; new ones among them" if rung["rung"] == 1 and course.search.sampled else "")
        )
    if caution := _in_warmup(course):
        yield caution
    for name in found["passed_over"]:
        yield f"passed over: {name}, which no width of the first rung can have"
    yield (
        f"all rungs: about {found['total']:.3g} training FLOPs; everything at the top: {found['everything']:.3g} "
        f"({100 * found['share']:.0f}% of it); target {found['target'] / course.steps.top:.3g} times the last rung"
    )


def _in_warmup(course: Course) -> str:
    """That runs of the rung to be trained end before their warm-up does; empty where none do."""
    rung = course.underway
    jobs = [] if rung is None else rung.jobs
    short = [job for job in jobs if job.evaluations[-1] <= job.science.schedule.warmup_steps]
    if rung is None or not short:
        return ""
    return (
        f"caution: rung {rung.number}: {len(short)} of {counted(len(jobs), 'run')} end within their warm-up of "
        f"{short[0].science.schedule.warmup_steps} steps and say little of what comes later; a larger target or "
        "budget, or fewer rungs (search.rungs=2)"
    )


def _arm_said(one: Entry, arm: Entry) -> str:
    place = f"omega {arm['omega']:.2f}, psi {arm['psi']:.2f}, nu {arm['nu']:.2f}"
    mixture = "" if arm["moe"] == "none" or arm["moe"] in one["name"] else f", {arm['moe']}"
    new = " (proposed)" if arm["origin"] == "proposed" else ""
    if "predicted" not in one:
        return f"{one['name']}{new}: {place}{mixture}" + (f"; {one['after']}" if "after" in one else "")
    return (
        f"{one['name']}{new}: measured {one['measured']:.4g}, at the target {one['predicted']:.4g} "
        f"[{one['low']:.4g}, {one['high']:.4g}], P(best) = {one['best']:.2f}; {one['after']}"
    )


def proposal_said(one: Entry) -> str:
    """A proposed arm, and why."""
    return (
        f"{one['arm']} (omega {one['omega']:.2f}, psi {one['psi']:.2f}, nu {one['nu']:.2f}), expected "
        f"{one['expected_loss']:.4g} ± {100 * one['spread']:.2g}%, improvement "
        f"{100 * one['expected_improvement']:.2g}%, most like {one['nearest']}"
    )


def said(found: Entry) -> Iterator[str]:
    """What the search found; what was decided at the last rung that is done where it is not over."""
    done = [rung for rung in found["rungs"] if rung["done"]]
    arms = {arm["name"]: arm for arm in found["arms"]}
    for rung in done[-1:]:
        errors = ", ".join(f"{name} {100 * s['error']:.2g}%" for name, s in rung["scores"].items())
        yield (
            f"rung {rung['rung']} at {rung['flops']:.3g} FLOPs: decided by {rung['predictor']}"
            + (
                f" (expected error between arms at the target: {errors})"
                if errors
                else " (nothing below it to be tested on)"
            )
        )
        for one in rung["arms"]:
            yield f"  {_arm_said(one, arms[one['name']])}"
        for one in rung["proposals"]:
            yield f"  proposed: {proposal_said(one)}"
    winner = found["winner"]
    if winner is None:
        return
    yield (
        f"best at {found['target']:.3g} FLOPs: {winner['name']}, loss {winner['predicted']:.4g} [{winner['low']:.4g}, "
        f"{winner['high']:.4g}], P(best) = {winner['best']:.2f} among those at the top; {found['spent']:.3g} training "
        f"FLOPs, {100 * found['spent'] / found['everything']:.0f}% of everything at the top"
    )
    arm = next(one for one in found["arms"] if one["name"] == winner["name"])
    if winner["name"].startswith("theta"):
        yield f"{winner['name']} is structure=einsum 'structure.theta={arm['theta']}'"
    multiplier = winner["multiplier"]
    if multiplier:
        yield (
            f"multiplier against dense: {multiplier['value']:.2f} [{multiplier['low']:.2f}, {multiplier['high']:.2f}], "
            f"better with P = {multiplier['better']:.2f}"
        )
    elif winner["name"] == YARDSTICK:
        yield "nothing beats dense"
    forecast = found["forecast"]
    if forecast:
        losses = ", ".join(f"{name} {_ends_said(one)}" for name, one in forecast["arms"].items())
        yield f"forecast at {forecast['flops']:.3g} FLOPs, to be scored by later runs: {losses}"


def _ends_said(one: Entry) -> str:
    return f"{one['loss']:.4g} [{one['low']:.4g}, {one['high']:.4g}]"
