"""One module a figure: draw(runs, laws) -> Drawing."""
