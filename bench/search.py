"""Does the search find the best structure, and at what share of the compute? Planted worlds, and a replay of kept runs.

    python -m bench.search worlds 200               regret and share of compute in worlds of three kinds
    python -m bench.search worlds 200 crossing      one kind (search_worlds.py): plateau, m4 and curved have other laws
    python -m bench.search optuna 200               the same worlds searched by Optuna (pip install optuna, beside this)
    python -m bench.search proposals 60             with proposals and without (search_proposals.py)
    python -m bench.search replay                   six kept studies: rank found, regret, share

A world has 27 arms whose losses follow a planted law (search_worlds.py); a run carries luck of 1% and an evaluation
noise of 0.4%, in log loss. Regret is the loss of the chosen arm at the target over the best arm's,
less one, without noise; share is the compute spent over that of training all arms to the last rung at all its widths.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.search_worlds import ARMS, BEYOND, ETA, FIRST, KINDS, Trained, World  # noqa: E402
from structlin.laws.minimum.objective import Array  # noqa: E402
from structlin.search import predictors  # noqa: E402
from structlin.search.promotion import chosen, promote  # noqa: E402
from structlin.search.rungs import Ladder, ladder  # noqa: E402

COUNTS = (27, 7, 3, 2)
"""Arms of each rung: 27 / 3^k, with two less so that all of it stays within 15% of the full grid."""
LEVEL = 0.01
SAID_EVERY = 20
"""Worlds after which it is said how it goes."""


def search(trained: Trained, steps: Ladder, target: float, only: str = "") -> tuple[int, float, list[str]]:
    """The arm that the search chooses, its P(best), and the predictor of each rung."""
    arms: list[int] = list(range(ARMS))
    used = []
    for k, flops in enumerate(steps.flops):
        trained.train(arms, flops)
        foretold = predictors.forecast(trained.measured(), flops, target, ETA, seed=k, only=only)
        used.append(foretold.predictor)
        if k + 1 < len(steps.flops):
            arms = list(promote(foretold, steps.counts[k + 1], LEVEL).stay)
    best = chosen(foretold)
    return best, float(foretold.best[list(foretold.arms).index(best)]), used


def by_search(world: World, steps: Ladder, target: float) -> tuple[int, float]:
    """The search of structlin."""
    trained = Trained(world)
    return search(trained, steps, target)[0], trained.spent


def by_raw(world: World, steps: Ladder, target: float) -> tuple[int, float]:
    """Successive halving by the loss of the rung."""
    trained = Trained(world)
    return search(trained, steps, target, only="raw")[0], trained.spent


def by_chance(world: World, steps: Ladder, target: float) -> tuple[int, float]:
    """As many arms drawn by chance as 15% of the full grid trains to the top; the lowest loss there."""
    trained = Trained(world)
    arms = np.random.default_rng([world.seed, 99]).permutation(ARMS)[: round(0.15 * ARMS)]
    trained.train(list(arms), steps.top)
    frontier = trained.measured().frontier(steps.top)
    return min(frontier, key=lambda arm: frontier[arm]), trained.spent


def by_grid(world: World, steps: Ladder, target: float) -> tuple[int, float]:
    """Every arm at the top; the lowest loss there."""
    trained = Trained(world)
    trained.train(range(ARMS), steps.top)
    frontier = trained.measured().frontier(steps.top)
    return min(frontier, key=lambda arm: frontier[arm]), trained.spent


def by_grid_laws(world: World, steps: Ladder, target: float) -> tuple[int, float]:
    """Every arm at the top; the lowest loss that the search's own predictor foretells at the target."""
    trained = Trained(world)
    trained.train(range(ARMS), steps.top)
    return chosen(predictors.forecast(trained.measured(), steps.top, target, ETA)), trained.spent


Method = Callable[[World, Ladder, float], tuple[int, float]]
METHODS: dict[str, Method] = {
    "search": by_search, "raw halving": by_raw, "random search": by_chance, "full grid, raw": by_grid,
    "full grid, laws": by_grid_laws,
}  # fmt: skip


def worlds(number: int, kinds: tuple[str, ...], methods: dict[str, Method]) -> None:
    """Regret at the target and share of compute of every method."""
    steps = ladder(COUNTS, FIRST, ETA)
    target = steps.top * BEYOND
    print(f"{number} worlds each, {ARMS} arms, rungs of {steps.counts} arms, target {BEYOND:g} times the last rung")
    for kind in kinds:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
        began = time.process_time()
        spread = []
        for seed in range(number):
            world = World(kind, seed)
            truth = world.best_loss(target)
            spread.append(np.std(np.log(truth)))
            full = Trained(world)
            full.train(range(ARMS), steps.top)
            for name, method in methods.items():
                arm, spent = method(world, steps, target)
                found[name].append((truth[arm] / truth.min() - 1, spent / full.spent))
            if (seed + 1) % SAID_EVERY == 0:
                first = next(iter(found))
                print(
                    f"{kind}: {seed + 1} worlds, {first}: {said(np.array(found[first]))}", file=sys.stderr, flush=True
                )
        print(
            f"{kind}: losses at the target spread by {100 * np.mean(spread):.2f}% "
            f"({time.process_time() - began:.0f} CPU s)"
        )
        for name, pairs in found.items():
            print(f"  {name:<18}{said(np.array(pairs))}", flush=True)


def said(pairs: Array) -> str:
    """Median, mean, nine tenths and largest regret, how often the best was found, median share."""
    regret, share = 100 * pairs[:, 0], 100 * pairs[:, 1]
    return (
        f"regret {np.median(regret):.2f}% (mean {regret.mean():.2f}, 9 of 10 below {np.quantile(regret, 0.9):.2f}, "
        f"most {regret.max():.2f}), best found {100 * np.mean(regret < 1e-9):.0f}%, share {np.median(share):.1f}%"
    )


# --- a library on the same worlds ---------------------------------------------------------------------------------


def by_optuna(pruner: str) -> Method:
    """Optuna: arms as a categorical parameter under TPE, pruned by successive halving or Hyperband on the rungs.

    It stops at 15% of the full grid; an arm that it asks for again costs nothing more.
    """

    def method(world: World, steps: Ladder, target: float) -> tuple[int, float]:
        import optuna  # type: ignore[import-not-found, unused-ignore]

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        trained, full = Trained(world), Trained(world)
        full.train(range(ARMS), steps.top)
        pruners = {
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(1, len(steps.flops), 3),
        }
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=world.seed), pruner=pruners[pruner]())
        reached: dict[int, tuple[int, float]] = {}

        def objective(trial: optuna.Trial) -> float:
            arm = trial.suggest_categorical("arm", list(range(ARMS)))
            value = np.inf
            # The first rung is resource 1, as its pruners count from one.
            for k, flops in enumerate(steps.flops, start=1):
                trained.train([arm], flops)
                own = Trained(world, {key: end for key, end in trained.ends.items() if key[0] == arm})
                value = own.measured().frontier(flops)[arm]
                reached[arm] = min(reached.get(arm, (0, np.inf)), (-k, value))
                trial.report(value, k)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return value

        # A trial of known arms is free: the number of trials is bounded besides.
        for _ in range(6 * ARMS):
            study.optimize(objective, n_trials=1)
            if trained.spent >= 0.15 * full.spent:
                break
        return min(reached, key=lambda arm: reached[arm]), trained.spent

    return method


# --- kept runs ----------------------------------------------------------------------------------------------------

TABLES = ("fig4", "regression", "pixels", "fig6", "fig7", "fig10")
REPLAYED_RUNGS = 3


def replay(tables: tuple[str, ...] = TABLES) -> None:
    """Every kept table searched again: the target is its top, the last rung an ``eta``-th of it."""
    from analysis.kept import load
    from structlin.search.replay import of_table, replayed

    for study in tables:
        kept = load(study)
        assert kept is not None, study
        measured, names = of_table(kept.runs)
        for only in ("", *predictors.PREDICTORS):
            found = replayed(measured, ETA, REPLAYED_RUNGS, LEVEL, only=only)
            print(f"{study:<11}{only or 'search':<9}{found.said(names)}", flush=True)


def main(arguments: list[str]) -> int:
    """One of the parts above."""
    part = arguments[0] if arguments else "worlds"
    number = int(arguments[1]) if len(arguments) > 1 and arguments[1].isdigit() else 20
    kinds = (arguments[2],) if len(arguments) > 2 else KINDS
    if part == "worlds":
        worlds(number, kinds, METHODS)
    elif part == "optuna":
        worlds(number, kinds, {f"optuna, {name}": by_optuna(name) for name in ("halving", "hyperband")})
    elif part == "proposals":
        from bench import search_proposals

        search_proposals.measure(number)
    elif part == "replay":
        replay(tuple(arguments[1:]) or TABLES)
    else:
        print(f"error: {part} is unknown; worlds, optuna, proposals or replay", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
