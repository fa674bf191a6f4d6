"""``python -m structlin COMMAND``: what the command ``structlin`` does."""

from structlin.command.main import run

if __name__ == "__main__":
    run()
