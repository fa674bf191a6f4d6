"""Where do the files of the command line lie? configs/ stands beside the package in a tree, installed inside of it."""

from __future__ import annotations

from pathlib import Path


def _config_dir() -> Path:
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIG_DIR = _config_dir()
