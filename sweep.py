"""Train a grid of (width, tokens) for structures and budgets.

python sweep.py structure=dense,btt budget=1e15,1e16        plan, show the bill, train what is missing
python sweep.py structure=btt budget=1e17 dry_run=true      the bill alone
"""

from structlin.config.compose import options
from structlin.config.doors import sweep_request
from structlin.errors import door


def main(arguments: list[str]) -> int:
    """Compose a typed request and make one call."""
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n{options('sweep')}")
        return 0
    request = sweep_request(arguments)
    from structlin.launch.carry_out import run_sweep

    return run_sweep(request)


if __name__ == "__main__":
    door(main)
