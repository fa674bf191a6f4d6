"""Keep the runs of a study in the repository: python -m analysis.keep study=regression runs=runs/regression

search=NAME in place of study=: those of a search that is over, with its record and its forecast; figure=search is then
drawn of it. beside=A.parquet,B.parquet: kept tables, such as a part of the study from another machine, whose runs count
where the store has none. Keys: study, study.size (small), search, runs (runs/), beside, out (analysis/data/).
"""

from __future__ import annotations

from pathlib import Path

from structlin.config.compose import CONFIG_DIR
from structlin.config.study import studies
from structlin.errors import UserError, asks_help, door, key_values, suggest

from . import kept


def main(arguments: list[str]) -> int:
    """Write NAME.parquet and NAME.json."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, {"study": "", "study.size": "small", "search": "", "runs": "runs", "beside": "",
                                    "out": str(kept.FOLDER)})  # fmt: skip
    if values["search"] and values["study"]:
        raise UserError("study= and search= name two things to keep; give one of them")
    known = studies(CONFIG_DIR / "study")
    if values["search"]:
        found = kept.keep_search(values["search"], Path(values["runs"]), Path(values["out"]))
    elif values["study"] not in known:
        raise UserError(f"study={values['study']} is unknown; {suggest(values['study'], known)}")
    else:
        beside = [Path(path) for path in values["beside"].split(",") if path]
        found = kept.keep(values["study"], values["study.size"], Path(values["runs"]), Path(values["out"]), beside)
    path = Path(values["out"]) / f"{found.study}.parquet"
    lacking = len(found.origin["missing"])
    print(
        f"{path}  {found.origin['runs']} runs, {len(found.runs)} evaluations, {path.stat().st_size / 1e3:.0f} kB"
        + (
            f"; {lacking} cells of the study are missing"
            if lacking
            else f"; the {'search' if values['search'] else 'study'} is complete"
        )
    )
    return 0


if __name__ == "__main__":
    door(main)
