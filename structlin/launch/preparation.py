"""Is the data of a plan there? What is missing of it is made before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from structlin.config.request import Site
from structlin.data import is_prepared, prepare
from structlin.planning.needs import data_needs
from structlin.runs.job import Job


def prepare_data(jobs: Iterable[Job], site: Site, console: Console) -> None:
    """Make what is missing of the data of these jobs; a teacher's labels up to the end of the longest of them."""
    for recipe, tokens in data_needs(jobs).items():
        if not is_prepared(recipe, site.data_root, tokens):
            console.print(f"preparing data={recipe.name} in {site.data_root}", highlight=False)
            prepare(recipe, site.data_root, lambda line: console.print(line, highlight=False), tokens)
