"""How far is a search? The rungs that are decided, and the one to be trained: a pure function of request and store.

Nothing is remembered but runs: each look decides every rung anew, from the evaluations up to that rung alone, so that
what later rungs have added changes no earlier decision, and a search that was killed goes on to the same choice.

    rung 0      all arms at the widths that the first compute deserves
    decision    predictor, forecast at the target, who stays; new arms after rung 0
    rung k      those that stay: their runs go on, at the widths that their law wants
    top         the same, and the other seeds; its forecast names the winner
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from structlin.anatomy.compute import flops_between, flops_until
from structlin.anatomy.ledger import ledger
from structlin.config.request import SweepRequest
from structlin.config.science import Science
from structlin.config.search import SearchConfig
from structlin.errors import UserError
from structlin.planning.grid import Cell, Plan, check_schedules
from structlin.planning.horizon import evaluation_steps
from structlin.runs.job import Job
from structlin.search import jointly
from structlin.search.arms import Arm, arms_of
from structlin.search.measurements import Measured
from structlin.search.predictors import Forecast, forecast
from structlin.search.prices import Prices
from structlin.search.promotion import FORCED, Promotion, chosen, promote
from structlin.search.proposals import Proposal, propose
from structlin.search.rungs import Ladder, counts_of, largest, reserve
from structlin.search.widths import Widths

ARMS_A_PROPOSAL = 9
LEAST_AT_TOP = 3
"""Arms of the last rung: dense, and two to choose from."""
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Seen:
    """What the store has of a job."""

    is_final: bool
    rows: tuple[tuple[int, float], ...]
    """Step and loss of each evaluation."""


Read = Callable[[Job], Seen]


@dataclass(frozen=True)
class Rung:
    """One rung: what it trains, and what was decided at its end."""

    number: int
    flops: float
    arms: tuple[int, ...]
    """Numbers of its arms."""
    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    new_flops: float
    """Training FLOPs beyond the rungs below."""
    done: bool = False
    forecast: Forecast | None = None
    measured: dict[int, float] | None = None
    """Frontier of each arm at its compute."""
    promotion: Promotion | None = None
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True)
class Course:
    """A search as it stands."""

    request: SweepRequest
    arms: tuple[Arm, ...]
    """Those asked for, then those proposed."""
    passed_over: tuple[Arm, ...]
    """Arms that no width of the first rung can have."""
    steps: Ladder
    rungs: tuple[Rung, ...]
    """Those decided, and the one underway."""
    expected: tuple[float, ...]
    """FLOPs that each rung was expected to cost."""
    everything: float
    """Training FLOPs of all arms at the last rung's compute, at all its widths and seeds."""
    measured: Measured | None = None
    """All that the decided rungs have measured."""

    @property
    def search(self) -> SearchConfig:
        assert self.request.search is not None
        return self.request.search

    @property
    def budget(self) -> float:
        return self.request.budgets[0]

    @property
    def underway(self) -> Rung | None:
        """The rung that is still to be trained; None where the search is over."""
        return None if self.rungs[-1].done else self.rungs[-1]

    @property
    def is_over(self) -> bool:
        """Whether the last rung is decided."""
        return self.rungs[-1].done and len(self.rungs) == len(self.steps.flops)

    @property
    def winner(self) -> int | None:
        """Number of the arm that is chosen; None before the end."""
        last = self.rungs[-1].forecast
        return chosen(last) if self.is_over and last is not None and len(last.arms) else None

    @property
    def spent(self) -> float:
        """Training FLOPs of the rungs so far, the one underway included."""
        return sum(rung.new_flops for rung in self.rungs)

    @property
    def total(self) -> float:
        """Training FLOPs of all rungs: planned where they are, expected where not."""
        return self.spent + sum(self.expected[len(self.rungs) :])

    def plan(self) -> Plan:
        """All runs so far, each as far as its last rung wants it."""
        jobs: dict[str, Job] = {}
        cells: dict[Cell, None] = {}
        for rung in self.rungs:
            jobs.update({job.run_id: job for job in rung.jobs})
            cells.update(dict.fromkeys(rung.cells))
        return Plan(tuple(cells), tuple(jobs.values()))


def cells_at_top(now: Course) -> tuple[Cell, ...]:
    """The runs that any arm would have at the last rung, as the grid lays them: what the data have to be enough for."""
    widths = Widths(now.request.grid, now.request.site.evals_per_decade)
    return tuple(
        Cell(science, step, now.steps.top, arm.template.asked)
        for arm in now.arms
        for science, step in widths.of(arm, now.steps.top)
    )


def _job(science: Science, step: int, per_decade: int) -> Job:
    return Job(science, evaluation_steps(science, step, per_decade))


def course(request: SweepRequest, read: Read) -> Course:
    """Everything that can be decided by what ``read`` finds. UserError for a budget that pays for no first rung."""
    check_schedules(request)
    return _Way(request, read).walk()


@dataclass(frozen=True)
class _Next:
    """What a decided rung says of the next one."""

    arms: tuple[int, ...]
    ratios: dict[int, float]
    """Tokens per MAC that the law of each arm wants."""
    points: int
    """Widths of each arm that the budget carries."""


class _Way:
    """The rungs one after another."""

    def __init__(self, request: SweepRequest, read: Read) -> None:
        assert request.search is not None
        self.request, self.search, self.read = request, request.search, read
        self.per_decade = request.site.evals_per_decade
        self.arms = list(arms_of(request))
        self.widths = Widths(request.grid, self.per_decade)
        self.counts = counts_of(len(self.arms), self.search.eta, self.search.rungs, LEAST_AT_TOP)
        self.most_new = self._most_proposals()
        self.prices = Prices(tuple(self.arms), self.widths, self.search, self.most_new)
        self.steps = largest(
            self.counts, self.search.eta, request.budgets[0], self.search.target,
            lambda steps: sum(self.prices.rungs(steps)), points=request.grid.points,
        )  # fmt: skip
        self.expected = self.prices.rungs(self.steps)
        self.ends: dict[Science, int] = {}
        self.of_run: dict[Science, tuple[int, int]] = {}
        self.rows: dict[Science, tuple[tuple[int, float], ...]] = {}

    def _most_proposals(self) -> int:
        if not self.search.sampled or len(self.counts) == 1:
            return 0
        asked = self.search.proposals
        return len(self.arms) // ARMS_A_PROPOSAL if asked is None else asked

    def walk(self) -> Course:
        """All rungs that can be decided by what the store holds, and the one that is trained next."""
        first = self.steps.flops[0]
        going = tuple(number for number, arm in enumerate(self.arms) if self.widths.of(arm, first))
        passed = tuple(arm for arm in self.arms if not self.widths.of(arm, first))
        rungs: list[Rung] = []
        ahead: _Next | None = _Next(going, {}, 0)
        for k, flops in enumerate(self.steps.flops):
            if ahead is None:
                break
            rung = self._planned(k, flops, ahead)
            seen = {job.science: self.read(job) for job in rung.jobs}
            if not all(one.is_final for one in seen.values()):
                rungs.append(rung)
                break
            for science, one in seen.items():
                self.rows[science] = tuple(row for row in one.rows if row[0] <= self.ends[science])
            spent = sum(one.new_flops for one in rungs) + rung.new_flops
            rung, ahead = self._decided(rung, k, spent)
            rungs.append(rung)
        if ahead is None and len(rungs) < len(self.steps.flops):
            # The budget carries no rung more: the last one that it did is the top.
            self.steps = Ladder(self.steps.counts[: len(rungs)], self.steps.flops[: len(rungs)])
            self.expected = self.expected[: len(rungs)]
        everything = self.prices.everything(self.steps.top)
        measured = self._measured() if self.rows else None
        return Course(
            self.request, tuple(self.arms), passed, self.steps, tuple(rungs), self.expected, everything, measured
        )

    # --- what a rung trains ---

    def _planned(self, k: int, flops: float, ahead: _Next) -> Rung:
        """The runs of a rung."""
        jobs, cells, new = [], [], 0.0
        for number in ahead.arms:
            for science, step in self._runs(number, k, ahead.ratios, ahead.points):
                end = max(step, self.ends.get(science, 0))
                new += flops_between(science, self.ends.get(science, 0), end)
                self.ends[science] = end
                self.of_run.setdefault(science, (number, len(self.of_run)))
                jobs.append(_job(science, end, self.per_decade))
                cells.append(Cell(science, step, flops, self.arms[number].template.asked))
        return Rung(k, flops, ahead.arms, tuple(jobs), tuple(cells), new)

    def _runs(self, number: int, k: int, ratios: dict[int, float], points: int) -> list[tuple[Science, int]]:
        """Runs of an arm on a rung, under the seeds that it has there, and their last steps."""
        arm, is_top = self.arms[number], k == len(self.steps.flops) - 1
        have = tuple(sorted({one.model.d_model for one in self.ends if self.of_run[one][0] == number}))
        runs = self.widths.of(arm, self.steps.flops[k], ratios.get(number), have, points)
        seeds = arm.seeds if is_top or self.search.seeds == "all" else arm.seeds[:1]
        return [(replace(plain, seed=seed), step) for plain, step in runs for seed in seeds]

    def _price(self, number: int, k: int, ratios: dict[int, float], points: int) -> float:
        """Training FLOPs of an arm on a rung beyond what it has."""
        runs = self._runs(number, k, ratios, points)
        return float(sum(flops_between(one, min(self.ends.get(one, 0), step), step) for one, step in runs))

    # --- what was measured ---

    def _measured(self) -> Measured:
        """Every evaluation that the rungs so far have asked for, after warm-up where a run got so far."""
        table = np.array([row for part in self._parts() for row in part]).reshape(-1, 6)
        return Measured(table[:, 0].astype(int), table[:, 1].astype(int), *table[:, 2:].T)

    def _parts(self) -> Iterator[list[tuple[float, ...]]]:
        for science, rows in self.rows.items():
            number, run = self.of_run[science]
            size, batch = ledger(science).macs_per_token, science.optim.batch_tokens
            good = [(step, loss) for step, loss in rows if math.isfinite(loss) and loss > 0]
            kept = [row for row in good if row[0] > science.schedule.warmup_steps] or good[-1:]
            yield [(number, run, size, step * batch, flops_until(science, step), loss) for step, loss in kept]

    # --- what is decided ---

    def _decided(self, rung: Rung, k: int, spent: float) -> tuple[Rung, _Next | None]:
        """A trained rung with its decision, and the next one; None at the top, or where the budget ends."""
        measured = self._measured()
        frontier = {arm: loss for arm, loss in measured.frontier(rung.flops).items() if arm in rung.arms}
        if not frontier:
            raise UserError(
                f"rung {k}: none of its {len(rung.arms)} arms has a finite loss; lower optim.lr, or look at their runs"
            )
        here = measured.of(np.array([arm for arm in measured.arms if arm in frontier or arm not in rung.arms]))
        foretold = forecast(here, rung.flops, self.search.target, self.search.eta, seed=k)
        foretold = _of_rung(foretold, rung.arms)
        rung = replace(rung, done=True, forecast=foretold, measured=frontier)
        if k == len(self.steps.flops) - 1:
            return rung, None
        new = self._proposals(foretold) if k == 0 else []
        always = [number for number in rung.arms if self.arms[number].is_yardstick]
        wished = promote(foretold, len(self.arms), self.search.level, always)
        numbers = tuple(range(len(self.arms), len(self.arms) + len(new)))
        self.arms += [one.arm for one in new]
        ahead = self._ahead(k + 1, _in_order(wished.stay, always, numbers), here, spent, len(always))
        going = set(ahead.arms) if ahead is not None else set()
        left = {arm: FORCED for arm in wished.stay if arm not in going}
        left |= {arm: UNMEASURED for arm in rung.arms if arm not in frontier}
        moved = Promotion(tuple(arm for arm in wished.stay if arm in going), wished.leave | left)
        kept = tuple(one for number, one in zip(numbers, new, strict=True) if number in going)
        if ahead is None:
            return replace(rung, promotion=None), None
        return replace(rung, promotion=moved, proposals=kept), ahead

    def _ahead(self, k: int, order: Sequence[int], measured: Measured, spent: float, yardsticks: int) -> _Next | None:
        """As many arms of an order as the budget carries to rung k and beyond; with fewer widths where it must be."""
        ratios = self._ratios(measured, order, self.steps.flops[k])
        left = self.request.budgets[0] - spent
        wished, best = min(len(order), self.steps.counts[k]), _Next((), ratios, 0)
        for points in range(self.request.grid.points, 0, -1):
            prices = [self._price(number, k, ratios, points) for number in order]
            most = self._most(k, prices, left)
            if most > len(best.arms):
                best = _Next(tuple(sorted(order[:most])), ratios, points)
            if most >= wished or self.request.grid.widths:
                break
        return best if len(best.arms) > yardsticks else None

    def _most(self, k: int, prices: Sequence[float], left: float) -> int:
        """The longest beginning of the arms that can go to rung k so that what is left pays for the rungs above too."""
        plain = [self.prices.step(arm, self.steps, k) for arm in self.arms]
        scale = max(1.0, float(np.mean(prices)) / max(float(np.mean([one for one in plain if one > 0] or [1.0])), 1.0))
        above = [
            scale * float(np.mean([one for arm in self.arms if (one := self.prices.step(arm, self.steps, j)) > 0]))
            for j in range(k + 1, len(self.steps.flops))
        ]
        counts = self.steps.counts[k:]
        fits = [
            most
            for most in range(1, len(prices) + 1)
            if sum(prices[:most]) + reserve(most, counts, above, self.search.eta) <= left
        ]
        return max(fits, default=0)

    def _proposals(self, foretold: Forecast) -> list[Proposal]:
        plain = [place for place, number in enumerate(foretold.arms) if self.arms[int(number)].is_plain]
        moved = foretold.draws - foretold.draws.mean(axis=1, keepdims=True)
        return propose(
            [self.arms[int(foretold.arms[place])] for place in plain], foretold.log_loss[plain],
            np.var(moved, axis=0)[plain], self.search.sampled, self.most_new,
            lambda arm: self.prices.whole(arm, self.steps.flops[1]), self.arms,
        )  # fmt: skip

    def _ratios(self, measured: Measured, going: Sequence[int], flops: float) -> dict[int, float]:
        """Tokens per MAC that the pooled law wants for each arm at a compute; for a new arm those of the middle one."""
        if len(np.unique(np.round(np.log(measured.size), 3))) < 3 or len(measured.arms) < 2:
            return {}
        joint = jointly.fit(measured, "pooled")
        known = dict(zip(map(int, joint.arms), map(float, joint.best_ratio(flops)), strict=True))
        middle = float(np.median(list(known.values())))
        return {number: known.get(number, middle) for number in going}


def _in_order(stay: Sequence[int], always: Sequence[int], new: Sequence[int]) -> list[int]:
    """Yardsticks, the two likeliest arms, the new ones, the others."""
    others = [arm for arm in stay if arm not in always]
    return [*always, *others[:2], *new, *others[2:]]


def _of_rung(foretold: Forecast, arms: Sequence[int]) -> Forecast:
    """A forecast of the arms of a rung alone: those that left may have reached its compute by a factor that is near."""
    keep = np.isin(foretold.arms, arms)
    return replace(foretold, arms=foretold.arms[keep], log_loss=foretold.log_loss[keep], draws=foretold.draws[:, keep])
