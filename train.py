"""Train one run.

python train.py structure=btt model.d_model=512 tokens=1e7
"""

from structlin.config.compose import options
from structlin.config.doors import train_request
from structlin.errors import door


def main(arguments: list[str]) -> int:
    """Compose a typed request and make one call."""
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__}\n{options('train')}")
        return 0
    request = train_request(arguments)
    from structlin.launch.carry_out import run_training

    return run_training(request)


if __name__ == "__main__":
    door(main)
