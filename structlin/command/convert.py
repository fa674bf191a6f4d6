"""What does a trained run become under another structure? So far: which rank each of its linears deserves.

    python -m structlin.convert ranks run=ID params=0.5 rule=lagrange out=ranks.json
    structlin sweep structure=low_rank structure.rank=d/4 structure.ranks=@ranks.json ...

prints the ranks as structure.ranks=@FILE takes them (structlin/config/ranks.py): of the linears that model.structured
names, null where dense takes no more parameters. The same: structlin convert ranks ...

Keys of ranks:
  run           a run's id, the first letters of it, or its folder
  params        the share of these linears' parameters that the ranks may take (0.5)
  rule          lagrange: most squared error taken away per parameter; welore: one threshold for values scaled to [0, 1]
  calibrate     tokens of its training data whose inputs weigh the errors; 0: none do; auto: 16,384 where the data are
                prepared (auto)
  out           a file to write them to as well
  step          of the checkpoint; newest: the last there is (newest)
  runs          the store (runs)
  data.root     where prepared data lie, for calibrate (data)
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from structlin.command.trained import NEWEST, found, loaded
from structlin.config.science import Science
from structlin.errors import UserError, asks_help, key_values, suggest, whole_number
from structlin.host.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor, nn

    from structlin.convert.ranks import Spectrum

DEFAULTS = {
    "run": "",
    "params": "0.5",
    "rule": "lagrange",
    "calibrate": "auto",
    "out": "",
    "step": NEWEST,
    "runs": "runs",
    "data.root": "data",
}
ACTIONS = ("ranks",)
CALIBRATION_TOKENS = 16_384


def main(arguments: list[str]) -> int:
    """Print the ranks. UserError for a run that is not there or has experts, and for a share that cannot be."""
    if not arguments or asks_help(arguments):
        print(__doc__)
        return 0
    action, *words = arguments
    if action not in ACTIONS:
        raise UserError(f"convert {action}: what is to be made comes first; {suggest(action, ACTIONS)}")
    values = key_values(words, DEFAULTS)
    share = _share(values["params"])
    from structlin.convert.ranks import RULES, params_of, ranks_by, squared_error_of, uniform

    if values["rule"] not in RULES:
        raise UserError(f"rule={values['rule']} is unknown; {suggest(values['rule'], RULES)}")
    tokens = None if values["calibrate"] == "auto" else whole_number("calibrate", values["calibrate"], 0)
    folder = found(Path(values["runs"]).expanduser(), values["run"])
    science = folder.science()
    model, step = loaded(folder, science, values["step"])
    spectra = _spectra(model, science, _batches(science, Path(values["data.root"]).expanduser(), tokens))
    ranks = ranks_by(values["rule"], spectra, share)
    text = json.dumps(ranks, indent=1)
    print(text)
    if values["out"]:
        write_atomically(Path(values["out"]).expanduser(), lambda stream: stream.write(f"{text}\n".encode()))
    whole = sum(one.dense for one in spectra.values())
    even = uniform(spectra, share)
    print(
        f"{values['rule']} at step {step:,}: {params_of(spectra, ranks):,} of {whole:,} parameters "
        f"({params_of(spectra, ranks) / whole:.3f}), squared error {squared_error_of(spectra, ranks):.4g}; the same "
        f"share of every linear: {params_of(spectra, even) / whole:.3f}, {squared_error_of(spectra, even):.4g}",
        file=sys.stderr,
    )
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UserError(f"params={text}: write a share of the parameters above 0 and at most 1, such as 0.5")
    return value


def _spectra(model: nn.Module, science: Science, batches: Iterator[Tensor] | None) -> dict[str, Spectrum]:
    """Singular values of the linears that model.structured names. UserError for mixtures."""
    from structlin.anatomy.kinds import anatomy
    from structlin.convert.aware import root
    from structlin.convert.model import matrix
    from structlin.convert.moments import moments
    from structlin.convert.ranks import spectrum
    from structlin.nn.linear import Linear

    if science.moe.kind != "none":
        raise UserError(f"the run is a mixture (moe={science.moe.kind}), whose experts have no ranks of their own")
    names = [shape.name for shape in anatomy(science).linears if science.model.is_structured(shape.name)]
    met = {} if batches is None else moments(model, batches, names)
    spectra = {}
    for name in names:
        layer = model.get_submodule(name)
        assert isinstance(layer, Linear)
        spectra[name] = spectrum(matrix(layer), root(met[name]) if name in met else None)
    return spectra


def _batches(science: Science, data_root: Path, tokens: int | None) -> Iterator[Tensor] | None:
    """Inputs of the first training batches, so many tokens of them. UserError where the data are not prepared.

    ``tokens`` None: some where the data are prepared; without them a line on stderr says what the ranks then know.
    """
    from structlin.data import is_prepared

    if tokens is None and is_prepared(science.data, data_root):
        tokens = CALIBRATION_TOKENS
    if not tokens:
        said = "" if tokens == 0 else f"; {science.data.command(data_root)} prepares its data"
        print(f"ranks by the matrices alone, whatever inputs they meet{said}", file=sys.stderr)
        return None
    from structlin.tasks.catalogue import open_task

    task = open_task(science, data_root)
    steps = math.ceil(tokens / science.optim.batch_tokens)
    return (task.train_batch(step)[0] for step in range(steps))
