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
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd

from analysis import exponents, fig1, fig2, fig4, fig5, fig6, fig7, fig10, kept, learning_rates, resources
from analysis.drawing import Drawing
from analysis.missing import missing_cells
from analysis.paint import render
from structlin.errors import UserError, door, suggest
from structlin.laws import choices as keys
from structlin.laws.choices import Choices
from structlin.laws.run import fit
from structlin.runs.files import write_atomically

FIGURES: dict[str, ModuleType] = {
    "fig1": fig1,
    "fig2": fig2,
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig7": fig7,
    "fig10": fig10,
    "resources": resources,
    "exponents": exponents,
    "learning-rates": learning_rates,
}
WITHOUT_RUNS, WITHOUT_LAWS = ("fig2",), ("fig2", "learning-rates")


def make(name: str, runs: pd.DataFrame | None, choices: Choices) -> Drawing:
    """The drawing of one figure from a table of runs. UserError where the table cannot be fitted."""
    module = FIGURES[name]
    if runs is None:
        return module.draw()  # type: ignore[no-any-return]
    if name in WITHOUT_LAWS:
        drawing = module.draw(runs)
    else:
        drawing = module.draw(runs, fit(_own(choices, module), runs))
    return drawing.lacking(*missing_cells(module.STUDY, runs))  # type: ignore[no-any-return]


def write(drawing: Drawing, out: Path) -> list[Path]:
    """NAME.png, NAME.pdf and NAME.csv below ``out``, each beside its place and then renamed there."""
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "png": render(drawing, "png"),
        "pdf": render(drawing, "pdf"),
        "csv": drawing.numbers().to_csv(index=False, float_format="%.8g").encode(),
    }
    paths = []
    for ending, content in files.items():
        path = out / f"{drawing.name}.{ending}"
        write_atomically(path, lambda stream, content=content: stream.write(content))
        paths.append(path)
    return paths


def _own(choices: Choices, module: ModuleType) -> Choices:
    """A figure may compare with a baseline of its own."""
    baseline = getattr(module, "BASELINE", None)
    return replace(choices, baseline=baseline) if baseline else choices


def main(arguments: list[str]) -> int:
    """Draw what was asked for; 0 also where a figure is incomplete, which is said."""
    if {"-h", "--help", "help"} & set(arguments):
        print(f"{__doc__}\nfigures: {', '.join(FIGURES)}")
        return 0
    own = dict(word.split("=", 1) for word in arguments if word.startswith(("figure=", "out=")))
    others = [word for word in arguments if not word.startswith(("figure=", "out="))]
    asked = own.get("figure", "all")
    names = list(FIGURES) if asked == "all" else asked.split(",")
    for name in names:
        if name not in FIGURES:
            raise UserError(f"figure={name} is unknown; {suggest(name, FIGURES)}")
    choices, out = keys.parse(others), Path(own.get("out", "figures"))
    table = kept.own_runs(choices) if others_choose_runs(others) else None
    for name in names:
        began = time.monotonic()
        runs = None if name in WITHOUT_RUNS else table if table is not None else kept.load(FIGURES[name].STUDY)
        if runs is None and name not in WITHOUT_RUNS:
            print(f"{name:<15} no runs kept of study={FIGURES[name].STUDY}; give some: runs=...", file=sys.stderr)
            continue
        drawing = make(name, runs, choices)
        paths = write(drawing, out)
        state = f"incomplete: {len(drawing.missing)} missing" if drawing.missing else "complete"
        print(f"{name:<15} {paths[0]}  {state}  {time.monotonic() - began:.1f} s")
        for line in drawing.missing[:3]:
            print(f"{'':<15} missing: {line}")
        if drawing.command:
            print(f"{'':<15} {drawing.command}")
    return 0


def others_choose_runs(arguments: list[str]) -> bool:
    """Whether the command line names runs of one's own."""
    return any(word.split("=", 1)[0] in ("runs", "source", "table", "project", "dir") for word in arguments)


if __name__ == "__main__":
    door(main)
