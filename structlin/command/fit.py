"""Fit scaling laws to the runs of this project, or to anybody's table: laws.json, a table, figures, report.html.

structlin fit, or in the tree python fit_laws.py:

    structlin fit                                          the runs in runs/, results in laws/
    structlin fit source=table table=FILE.csv columns='{params: N, tokens: D, loss: L}' out=DIR
    structlin fit where='d_model >= 128 and structure in ["dense", "btt"]' delta=1e-2

Keys (docs/laws.md says what each fit does):
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from structlin.errors import UserError, asks_help


def main(arguments: list[str]) -> int:
    """Read, choose, fit, write, show."""
    # A process of seconds: looking for cycles of garbage among the imports would take 4% of it.
    gc.disable()
    # Its matrices are small: BLAS threads would spin for three times the processor's time and win nothing (measured).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from structlin.laws import choices as keys
    from structlin.laws import run

    if asks_help(arguments):
        print(f"{__doc__}{keys.help_text()}")
        return 0
    choices = keys.parse(arguments)
    table = None
    if choices.source == "runs":
        folder = Path(choices.runs)
        if not folder.is_dir():
            raise UserError(f"runs={choices.runs} is not a folder; train first, or name it: runs=...")
        from structlin.runs import table as store

        table = store.load(folder)
    run.run(choices, table)
    print(f"written to {choices.out}", file=sys.stderr)
    return 0
