"""Train a grid of (width, tokens) for structures and budgets: structlin sweep, or in the tree python sweep.py.

structlin sweep structure=dense,btt budget=1e15,1e16        plan, show the bill, train what is missing
structlin sweep structure=btt budget=1e17 dry_run=true      the bill alone, and what it can decide
"""

from __future__ import annotations

from structlin.errors import asks_help


def main(arguments: list[str]) -> int:
    """Compose a typed request and make one call."""
    if asks_help(arguments):
        from structlin.command.help import page

        print(f"{__doc__}\n{page('sweep', arguments)}")
        return 0
    from structlin.config.looking import status_request

    if (asked := status_request(arguments)) is not None:
        from structlin.launch.carry_out import quick_status, show_status

        looked_at, is_this_command = asked
        if not is_this_command:
            return show_status(looked_at)
        if (code := quick_status(arguments, looked_at)) is not None:
            return code
    from structlin.config.doors import sweep_request

    request = sweep_request(arguments)
    from structlin.launch.carry_out import run_sweep

    return run_sweep(request)
