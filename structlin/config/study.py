"""What does ``study=regression`` stand for? Command lines kept in a file: configs/study/<name>.yaml.

    figure: what it draws                                 optional, for readers
    common: [task=regression, "structure=dense,btt1"]     what every size of the study has
    sizes:
      small: [...]                                        what study.size=small adds; the default
      paper: [...]
    lines:                                                optional: axes that belong together, where one product of
      small: ["structure=dense,btt1 optim.lr=1e-3",       all axes would make runs that nobody wants; each line adds
              "structure=btt1 optim.lr=2e-3"]             its words, and the study is the runs of all lines

    changes:                                              of sizes other than paper: what they set otherwise than what
      small: {model.d_model: why}                         was published, and why; key of the config -> reason

The words come before those of the user, so that what is said on the command line counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from structlin.errors import UserError, suggest

SMALL = "small"


def expand_study(arguments: Sequence[str], folder: Path) -> tuple[list[list[str]], str]:
    """The command lines that ``study=NAME [study.size=SIZE]`` and the other arguments stand for, and those two words.

    One line, and no such words, where no study is asked for. UserError for an unknown study or size, or a size of none.
    """
    given = dict(word.split("=", 1) for word in arguments if word.startswith(("study=", "study.size=")))
    rest = [word for word in arguments if not word.startswith(("study=", "study.size="))]
    if not given:
        return [rest], ""
    if "study" not in given:
        raise UserError(f"study.size={given['study.size']} says the size of no study; add {_listing('study', folder)}")
    name, size = given["study"], given.get("study.size", SMALL)
    if name not in studies(folder):
        raise UserError(f"study={name} is unknown; {suggest(name, studies(folder))}")
    content = _read(folder / f"{name}.yaml")
    if size not in content["sizes"]:
        raise UserError(f"study.size={size} is unknown; {suggest(size, content['sizes'])}")
    lines = content.get("lines", {}).get(size, [""])
    common = [*content["common"], *content["sizes"][size]]
    return [[*common, *line.split(), *rest] for line in lines], f"study={name} study.size={size}"


def studies(folder: Path) -> list[str]:
    """Names of the studies there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def sizes(folder: Path, name: str) -> list[str]:
    """Sizes of a study."""
    return list(_read(folder / f"{name}.yaml")["sizes"])


def changes(folder: Path, name: str, size: str) -> dict[str, str]:
    """What a size of a study sets otherwise than what was published: key of the config -> reason."""
    return dict(_read(folder / f"{name}.yaml").get("changes", {}).get(size, {}))


def _listing(key: str, folder: Path) -> str:
    return f"{key}={'|'.join(studies(folder))}"


def _read(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict), path
    assert content.keys() - {"figure", "lines", "changes"} == {"common", "sizes"}, path
    assert content.get("lines", {}).keys() <= content["sizes"].keys(), path
    return {str(key): value for key, value in content.items()}
