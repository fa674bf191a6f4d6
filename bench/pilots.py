"""Which laws does the bill plan with where the user has none? Fits of the kept studies, written beside the planner.

    python -m bench.pilots                    writes structlin/planning/pilots.json

Language is fitted below 2.2 nats alone: above it small models sit on the bigram plateau, which is no power law. The
file that is kept has the laws of language runs up to 5e11 FLOPs, of before 2026-11-26: those of the runs to 5e12 expect
of small plans what was not measured (lab book, 2026-11-27). Write it anew only with laws that do better there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structlin.command.main import kept_study
from structlin.errors import asks_help, door, key_values
from structlin.host.files import write_json
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.checks.next_runs import pilots
from structlin.laws.choices import Choices
from structlin.laws.run import read

STUDIES = {"language": ("fig4", "val_loss < 2.2"), "pixels": ("pixels", ""), "regression": ("regression", "")}
"""Task -> study and condition on its evaluations."""
LARGE = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.3478, "beta": 0.3658, "run_noise": 0.01, "row_noise": 0.005}
"""Chinchilla's law as fitted again in arXiv 2404.10102, with the noise of our runs: language beyond the kept runs."""
OUT = Path("structlin/planning/pilots.json")


def pilot(study: str, where: str) -> dict[str, Any]:
    """The laws and the noise of every structure of a study."""
    choices = Choices(source="table", table=str(kept_study(study)), where=where)
    laws = fit_laws(read(choices), choices)
    noise = pilots(laws)
    found: dict[str, Any] = {}
    for variant, fitted in laws.parametrics.items():
        law = fitted.fit.law
        values = {name: float(f"{getattr(law, name):.4g}") for name in ("E", "A", "B", "alpha", "beta")}
        spread = {name: float(f"{noise[variant][name]:.3g}") for name in ("run_noise", "row_noise")}
        found[variant.split("+")[0]] = values | spread
    top = float(f"{laws.points.frame['C'].max():.3g}")
    return {"study": study, "where": where, "flops": top, "laws": found}


def main(arguments: list[str]) -> int:
    """Write the file."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    out = Path(key_values(arguments, {"out": str(OUT)})["out"])
    found = {task: pilot(study, where) for task, (study, where) in STUDIES.items()}
    write_json(
        out, {**found, "large": {"study": "arXiv 2404.10102", "where": "", "flops": 1e30, "laws": {"dense": LARGE}}}
    )
    print(out)
    return 0


if __name__ == "__main__":
    door(main)
