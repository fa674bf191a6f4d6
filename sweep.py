"""Train a grid of (width, tokens) for structures and budgets.

python sweep.py structure=dense,btt budget=1e15,1e16        plan, show the bill, train what is missing
python sweep.py structure=btt budget=1e17 dry_run=true      the bill alone
"""

from structlin.config.compose import options
from structlin.config.doors import status_request, sweep_request
from structlin.errors import door


def main(arguments: list[str]) -> int:
    """Compose a typed request and make one call."""
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n{options('sweep')}")
        return 0
    if (asked := status_request(arguments)) is not None:
        from structlin.launch.carry_out import quick_status, show_status

        looked_at, is_this_command = asked
        if not is_this_command:
            return show_status(looked_at)
        if (code := quick_status(arguments, looked_at)) is not None:
            return code
    request = sweep_request(arguments)
    from structlin.launch.carry_out import run_sweep

    return run_sweep(request)


if __name__ == "__main__":
    door(main)
