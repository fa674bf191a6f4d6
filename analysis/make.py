"""Make figures from runs: PNG, PDF, the numbers as CSV, and an interactive page.

    python -m analysis.make                                       all figures from the runs kept in the repository
    python -m analysis.make figure=fig4 runs=runs/                one figure from a store of one's own
    python -m analysis.make figure=fig6 source=wandb project=entity/name

Keys: figure (comma list, or all), out (figures/), and those of fit_laws.py that choose runs and fits
(runs, source, table, project, where, convention, baseline, ...).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from structlin.drawing.charts import page
from structlin.drawing.drawing import Drawing
from structlin.drawing.names import readable, titled
from structlin.drawing.paint import render
from structlin.errors import UserError, asks_help, door, key_values, one_line, suggest
from structlin.host.files import write_atomically
from structlin.laws import choices as keys
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.approaches.laws import Laws
from structlin.laws.choices import Choices
from structlin.laws.run import read

from . import kept
from .catalogue import FIGURES, Figure
from .kept import Kept
from .missing import command, of_any_size, shares_of

OWN_KEYS = {"figure": "all", "out": "figures"}
CHOOSE_RUNS = ("runs", "source", "table", "project", "dir")


class Maker:
    """Draws figures; what several of them share (kept tables, laws) is made once."""

    def __init__(self, choices: Choices, own: pd.DataFrame | None = None, folder: Path = kept.FOLDER) -> None:
        self.choices, self.own, self.folder = choices, own, folder
        self._tables: dict[str, Kept | None] = {}
        self._laws: dict[tuple[str, str], Laws] = {}

    def drawing(self, name: str) -> Drawing | None:
        """A figure, marked with what it lacks; None where none of its runs are kept. UserError for unfit runs."""
        figure = FIGURES[name]
        if not figure.study:
            return figure.draw(*([] if figure.table is None else [figure.table()]))
        if self.own is not None and figure.store is not None and self.choices.source == "runs":
            return figure.store(Path(self.choices.runs))
        if self.own is not None:
            return self._of_own(figure, self.own)
        for study in (figure.study, *figure.others):
            found = self.kept(study)
            if found is None:
                continue
            drawn = self._drawn(figure, study, found.runs)
            if study == figure.study:
                return drawn.lacking(*found.missing)
            said = f"no runs of study={figure.study} are kept; drawn from those of study={study}"
            return drawn.lacking([said], command(figure.study, "small"))
        return None

    def kept(self, study: str) -> Kept | None:
        """The kept runs of a study."""
        if study not in self._tables:
            self._tables[study] = kept.load(study, self.folder)
        return self._tables[study]

    def laws(self, study: str, runs: pd.DataFrame, baseline: str = "dense") -> Laws:
        """The laws of a table against a baseline, fitted once."""
        key = (study, baseline)
        if key not in self._laws:
            choices = kept.as_own(replace(self.choices, baseline=baseline))
            self._laws[key] = fit_laws(read(choices, runs), choices)
        return self._laws[key]

    def remember(self, study: str, baseline: str, laws: Laws) -> None:
        """Laws that were fitted elsewhere."""
        self._laws[(study, baseline)] = laws

    def baseline(self, figure: Figure, runs: pd.DataFrame) -> str:
        """What a figure compares with: its own baseline, else the one that was chosen."""
        name = figure.baseline if figure.baseline != "dense" else self.choices.baseline
        variants = sorted(set(runs["variant"]), key=len)
        # Under the paper's rounding, or an RMS cap, every variant says so: btt/paper+fixed-norm.
        return next((one for one in variants if name in (one, one.split("+")[0].removesuffix("/paper"))), name)

    def _of_own(self, figure: Figure, runs: pd.DataFrame) -> Drawing:
        """A figure of runs that the user names. UserError where it cannot be drawn of them, as of another study's."""
        try:
            drawn = self._drawn(figure, "own", runs)
        except UserError:
            raise
        except (LookupError, StopIteration, TypeError, ValueError) as error:
            if any(shares_of(figure.study, runs).values()):
                raise
            why = f"these runs lack what it draws, and none is known as one of study={figure.study}"
            raise UserError(
                f"{why} ({type(error).__name__} {one_line(error)}); {command(figure.study, 'small')}"
            ) from error
        return drawn.lacking(*of_any_size(figure.study, runs))

    def _drawn(self, figure: Figure, study: str, runs: pd.DataFrame) -> Drawing:
        if not figure.laws:
            drawn = figure.draw(runs)
        else:
            drawn = figure.draw(runs, self.laws(study, runs, self.baseline(figure, runs)))
        variants = runs["variant"].unique() if "variant" in runs else ()
        called = {variant: readable(variant, variants) for variant in variants}
        return replace(drawn, title=titled(drawn.title, variants), called=called)


def write(drawing: Drawing, out: Path) -> list[Path]:
    """NAME.png, NAME.pdf, NAME.csv and NAME.html below ``out``, each beside its place and then renamed there."""
    png, pdf = render(drawing, "png", "pdf")
    files = {
        "png": png,
        "pdf": pdf,
        "csv": drawing.numbers().to_csv(index=False, float_format="%.8g").encode(),
        "html": page(drawing).encode(),
    }
    paths = []
    for ending, content in files.items():
        path = out / f"{drawing.name}.{ending}"
        write_atomically(path, content)
        paths.append(path)
    return paths


def divided(arguments: list[str], defaults: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The keys of a command of its own, over their defaults, and the words that are those of fit_laws.py."""
    words = [word.lstrip("-") for word in arguments]
    mine = [word for word in words if word.partition("=")[0] in defaults]
    return key_values(mine, defaults), [word for word in words if word not in mine]


def maker_of(arguments: list[str]) -> Maker:
    """The maker that a command line asks for: of kept runs, or of those that it names."""
    choices = keys.parse(arguments)
    names_runs = any(word.partition("=")[0] in CHOOSE_RUNS for word in arguments)
    return Maker(choices, kept.own_runs(choices) if names_runs else None)


def main(arguments: list[str]) -> int:
    """Draw what was asked for; 0 also where a figure is incomplete, which is said; 2 where one cannot be drawn."""
    if asks_help(arguments):
        print(f"{__doc__}\nfigures: {', '.join(FIGURES)}")
        return 0
    own, others = divided(arguments, OWN_KEYS)
    names = list(FIGURES) if own["figure"] == "all" else own["figure"].split(",")
    for name in names:
        if name not in FIGURES:
            raise UserError(f"figure={name} is unknown; {suggest(name, FIGURES)}")
    Path(own["out"]).mkdir(parents=True, exist_ok=True)
    maker = maker_of(others)
    from .prefit import prefit

    prefit(maker, names)
    failed = []
    for name in names:
        began = time.monotonic()
        try:
            drawing = maker.drawing(name)
        except UserError as error:
            failed.append(name)
            print(f"{name:<16} {error}", file=sys.stderr)
            continue
        if drawing is None:
            study = FIGURES[name].study
            print(f"{name:<16} no runs of study={study} are kept: {command(study, 'small')}", file=sys.stderr)
            continue
        path = write(drawing, Path(own["out"]))[0]
        state = f"incomplete: {len(drawing.missing)} missing" if drawing.missing else "complete"
        print(f"{name:<16} {path}  {state}  {time.monotonic() - began:.1f} s")
        for line in [*drawing.missing[:3], drawing.command if drawing.missing else ""]:
            if line:
                print(f"{'':<16} {line}")
    return 2 if failed else 0


if __name__ == "__main__":
    door(main)
