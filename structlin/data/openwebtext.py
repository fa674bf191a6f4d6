"""Where does OpenWebText come from? The Hugging Face hub, streamed by the library datasets, or local files.

Tried in order: the dataset itself, then the hub's own parquet copy of it (datasets has dropped script
loaders). A ``data.path`` given by the user comes instead of the hub and goes through the same library and the
same loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from structlin.data import documents as files
from structlin.errors import UserError, one_line
from structlin.host.network import reachable

HUB_NAME = "Skylion007/openwebtext"
HUB_REVISIONS = ("main", "refs/convert/parquet")

VALIDATION_EVERY = 2_000
"""One document in 2,000 of about 8 million, as customary for GPT-2 on this data."""

_ROWS_A_BATCH = 256
_ANSWER_SECONDS = 8.0
_WAY_OUT = "use scale=small (the bundled text), or give local parquet or JSON lines by data.path=..."


def documents(path: str, column: str, provenance: dict[str, Any]) -> Iterator[str]:
    """The texts in the order of the source, streamed; ``provenance`` is told which source answered.

    ``UserError`` within seconds where the hub is out of reach, and where the stream breaks off.
    """
    stream = _open_local(path, provenance) if path else _open_hub(provenance)
    batches = stream.iter(batch_size=_ROWS_A_BATCH)
    rows = 0
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # datasets lets through errors of its HTTP client, of fsspec and of arrow
            raise UserError(
                f"data=openwebtext broke off after {rows:,} documents ({one_line(error)}); run it again, or {_WAY_OUT}"
            ) from error
        if batch is None:
            return
        files.check_column(column, list(batch), "openwebtext")
        rows += len(batch[column])
        for value in batch[column]:
            yield files.checked_text(value, column, "openwebtext")


def _open_local(path: str, provenance: dict[str, Any]) -> Any:
    found = files.expand(path)
    kinds = {files.kind(file) for file in found}
    if kinds not in ({"parquet"}, {"json"}):
        raise UserError(
            f"data.path={path}: openwebtext is read from parquet or from JSON lines, one kind; use data=text"
        )
    provenance["files"] = [str(file) for file in found]
    return _load(kinds.pop(), data_files=[str(file) for file in found])


def _open_hub(provenance: dict[str, Any]) -> Any:
    _require_network()
    _require_answer()
    failures = []
    for revision in HUB_REVISIONS:
        try:
            stream = _load(HUB_NAME, revision=revision)
        except Exception as error:  # a missing revision, a dead script, a refused request: each its own
            failures.append(f"{revision}: {one_line(error)}")
            continue
        provenance.update(dataset=HUB_NAME, revision=revision)
        return stream
    raise UserError(f"data=openwebtext: {HUB_NAME} cannot be opened ({'; '.join(failures)}); {_WAY_OUT}")


def _require_network() -> None:
    """Fail in milliseconds where there is no network; datasets would retry a name for 24 seconds."""
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        if os.environ.get(variable, "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise UserError(
                f"data=openwebtext needs the Hugging Face hub, but {variable} is set: unset it, or {_WAY_OUT}"
            )
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not reachable(endpoint):
        raise UserError(f"data=openwebtext: {endpoint} is out of reach from here; connect, or {_WAY_OUT}")


def _require_answer() -> None:
    """Fail in seconds where something answers, but no hub: one request by its own client, no retries."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().dataset_info(HUB_NAME, timeout=_ANSWER_SECONDS)
    except Exception as error:  # errors of the HTTP client, of TLS, and statuses of the hub
        raise UserError(
            f"data=openwebtext: the hub does not serve {HUB_NAME} ({one_line(error)}); try later, or {_WAY_OUT}"
        ) from error


def _load(name: str, **how: Any) -> Any:
    import datasets

    return datasets.load_dataset(name, split="train", streaming=True, **how)
