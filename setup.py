"""Which folders make the installed package? structlin/, and in it configs/ and analysis/, which stand beside it here.

A command that is installed finds its configs and figures where it is; all else stands in pyproject.toml.
"""

from setuptools import find_packages, setup

INSIDE = ("configs", "analysis")


def inside(folder: str) -> list[str]:
    """A folder and those below it as packages of structlin; configs hold no Python."""
    import os

    found = [root for root, _, files in os.walk(folder) if files and "__pycache__" not in root]
    return [f"structlin.{root.replace(os.sep, '.')}" for root in sorted(found)]


setup(
    packages=[*find_packages(include=["structlin*"]), *(name for folder in INSIDE for name in inside(folder))],
    package_dir={f"structlin.{folder}": folder for folder in INSIDE},
)
