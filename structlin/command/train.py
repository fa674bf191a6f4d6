"""Train one run: structlin train, or in the tree python train.py.

structlin train structure=btt model.d_model=512 tokens=1e7
"""

from __future__ import annotations

from structlin.errors import asks_help


def main(arguments: list[str]) -> int:
    """Compose a typed request and make one call."""
    if asks_help(arguments):
        from structlin.command.help import page

        print(f"{__doc__}\n{page('train', arguments)}")
        return 0
    from structlin.config.doors import train_request

    request = train_request(arguments)
    from structlin.launch.carry_out import run_training

    return run_training(request)
