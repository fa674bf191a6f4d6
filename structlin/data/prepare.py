"""How do documents become token shards? Stream, clean, encode, split, write; a folder appears whole or not.

The work is done in ``<folder>.partial`` under a lock and renamed at the end, so a half-made folder never
carries the final name; a killed preparation is begun again by the next one. Images take the same way without the
cleaning; a teacher's labels grow in place (data/labels.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from structlin.data import documents as files
from structlin.data import images, labelled, labels, openwebtext, sotu, vocabulary
from structlin.data.manifest import MANIFEST_NAME, SPLITS, Manifest
from structlin.data.plateau import plateau
from structlin.data.recipe import SOURCES, VERSIONS, DataRecipe, folder, is_prepared
from structlin.data.split import ByContent
from structlin.data.tokenizers import Encoder, make_encoder, tokenizer_spec
from structlin.data.writer import SplitWriter
from structlin.errors import UserError
from structlin.host.locks import exclusive

Progress = Callable[[str], None]
"""Is told one line about the state, a few times a second at most."""

_BATCH_CHARACTERS = 4_000_000
_BATCH_DOCUMENTS = 1_024
_REPORT_SECONDS = 0.5


def prepare(recipe: DataRecipe, root: Path | str, progress: Progress | None = None, samples: int = 0) -> Path:
    """Make the shards of a recipe if they are not there, and return their folder.

    Memory is bounded by a batch of documents, whatever the size of the data. Two processes may ask at once:
    one works, the other waits. Raises ``UserError`` for what the user can mend (network, files, disk).
    ``samples``: training samples of a teacher that are needed at least; those that are there stay as they are.
    """
    place = folder(recipe, root)
    tell = progress or (lambda line: None)
    if is_prepared(recipe, root, samples):
        return place
    _check_source(recipe)
    _make_root(Path(root))
    with _lock(place, tell):
        if recipe.is_endless:
            labels.extend(place, recipe.to_dict(), samples, tell, width=recipe.width, depth=recipe.depth)
        elif not is_prepared(recipe, root):
            _build(recipe, place, tell)
    return place


def _check_source(recipe: DataRecipe) -> None:
    """The recipe is of this code's version, and its files are those it was made from."""
    if recipe.version not in VERSIONS:
        raise UserError(
            f"data.version={recipe.version} cannot be prepared: this code cleans and splits by versions "
            f"{' and '.join(map(str, VERSIONS))}"
        )
    if recipe.content and not recipe.path:
        raise UserError(
            f"data={recipe.name} of content {recipe.content} is not prepared here; give its files by data.path=..."
        )
    if recipe.path and (found := recipe.fingerprint()) != recipe.content:
        raise UserError(
            f"data.path={recipe.path} has changed: content {found} instead of {recipe.content}; "
            "bring the old files back, or start anew without data.content"
        )


def _make_root(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"root={root}: cannot make this folder: {error.strerror}") from error


@contextlib.contextmanager
def _lock(place: Path, tell: Progress) -> Iterator[None]:
    """Only one process prepares a folder; the lock of a killed one is free."""
    path = place.with_name(f".{place.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(exclusive(path, lambda line: tell(f"another process prepares this data: {line}")))
        except OSError as error:
            raise UserError(f"root={place.parent}: cannot write there: {error.strerror}") from error
        yield


def _build(recipe: DataRecipe, place: Path, tell: Progress) -> None:
    """Make the folder beside, then rename it to its place."""
    # One name for all: we hold the lock, and what a killed process left here (gigabytes, it may be) is removed.
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        write = {"pixels": _write_images, "classification": _write_labelled}.get(recipe.kind, _write_shards)
        manifest = write(recipe, partial, place.parent, tell)
        if recipe.kind == "language":
            # Written first without: counting reads the folder as any reader does.
            manifest.write(partial)
            manifest.provenance["plateau"] = plateau(partial, manifest.vocab_size)
        manifest.write(partial)
        _clear(place)
        partial.rename(place)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear(place: Path) -> None:
    """Remove broken shards of ours from the place; a file that is not ours stays and the rename refuses."""
    if place.is_dir():
        (place / MANIFEST_NAME).unlink(missing_ok=True)
        for split in SPLITS:
            for shard in place.glob(f"{split}-?????.bin"):
                shard.unlink()


def _write_shards(recipe: DataRecipe, partial: Path, root: Path, tell: Progress) -> Manifest:
    spec = tokenizer_spec(recipe.tokenizer)
    if recipe.tokenizer_path:
        vocabulary.keep(Path(recipe.tokenizer_path), recipe.tokenizer, root)
    encoder = make_encoder(recipe.tokenizer, whole_documents=SOURCES[recipe.name].whole_documents, root=root)
    provenance: dict[str, Any] = {"path": recipe.path}
    writers = {split: SplitWriter(partial, split, spec.dtype) for split in SPLITS}
    try:
        _encode_all(_documents(recipe, provenance), recipe, encoder, writers, tell)
        splits = {split: writer.close() for split, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    for split in SPLITS:
        if not splits[split].num_tokens:
            raise UserError(_empty_split(recipe, split, encoder))
    provenance["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Manifest(recipe.to_dict(), spec.vocab_size, spec.dtype, splits, encoder.report.to_dict(), provenance)


def _write_images(recipe: DataRecipe, partial: Path, root: Path, tell: Progress) -> Manifest:
    """Shards whose documents are images, all of one size, in the order of their source."""
    spec = tokenizer_spec(recipe.tokenizer)
    writers = {split: SplitWriter(partial, split, spec.dtype) for split in SPLITS}
    first = 0
    split = ByContent(recipe.validation_every, writers)
    try:
        for batch in images.digits() if recipe.name == "digits" else images.cifar(recipe.files()):
            for index, tokens in enumerate(batch, start=first):
                if recipe.version > 1:
                    split.write(tokens)
                    continue
                writers["validation" if _is_nth(recipe, index) else "train"].write_document(tokens)
            first += len(batch)
            tell(f"{first:,} images written")
        split.close()
        splits = {split: writer.close() for split, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    if not all(splits[split].num_tokens for split in SPLITS):
        raise UserError(
            f"data={recipe.name} has {first} images, one in {recipe.validation_every} is validation, so one split is "
            "empty; give more, or a smaller data.validation_every"
        )
    provenance = {"path": recipe.path, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    kept = {"documents_read": first, "documents_kept": first, "dropped_share": 0.0}
    return Manifest(recipe.to_dict(), spec.vocab_size, spec.dtype, splits, kept, provenance)


def _write_labelled(recipe: DataRecipe, partial: Path, root: Path, tell: Progress) -> Manifest:
    return labelled.write(recipe, partial, tell)


def _documents(recipe: DataRecipe, provenance: dict[str, Any]) -> Iterator[str]:
    if recipe.name == "sotu":
        provenance["package"] = f"sotu=={sotu.VERSION}"
        return sotu.documents()
    if recipe.name == "openwebtext":
        return openwebtext.documents(recipe.path, recipe.column, provenance)
    return files.read_documents(recipe.files(), recipe.column, recipe.version)


def training_documents(recipe: DataRecipe) -> Iterator[str]:
    """The texts of a recipe, as they are: those of the training split where a document's number or text decides its
    split (version 1), all of them where its tokens do (version 2), of which there are none yet."""
    for index, text in enumerate(_documents(recipe, {})):
        if recipe.version > 1 or not is_validation(recipe, index, text):
            yield text


def _encode_all(
    documents: Iterable[str],
    recipe: DataRecipe,
    encoder: Encoder,
    writers: dict[str, SplitWriter],
    tell: Progress,
) -> None:
    told = time.monotonic()
    first = 0
    split = ByContent(recipe.validation_every, writers)
    for batch in _batches(documents):
        for index, tokens in enumerate(encoder.encode(batch), start=first):
            if tokens.size and recipe.version > 1:
                split.write(tokens)
            elif tokens.size:
                of = "validation" if is_validation(recipe, index, batch[index - first]) else "train"
                writers[of].write_document(tokens)
        first += len(batch)
        if time.monotonic() - told > _REPORT_SECONDS:
            told = time.monotonic()
            tell(f"{first:,} documents read, {sum(w.num_tokens for w in writers.values()):,} tokens written")
    split.close()


def is_validation(recipe: DataRecipe, index: int, text: str) -> bool:
    """Whether a document belongs to validation under version 1; a document is never divided.

    sotu and text: every n-th document, from the middle of the first n, so the share holds for small data and
    is spread over it. openwebtext: by a hash of the text, whatever order the hub serves, so that copies of a
    document, common in a crawl, lie on one side.
    """
    if recipe.name == "openwebtext":
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little") % recipe.validation_every == 0
    return _is_nth(recipe, index)


def _is_nth(recipe: DataRecipe, index: int) -> bool:
    return index % recipe.validation_every == recipe.validation_every // 2


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists that are full by number or by characters."""
    batch: list[str] = []
    characters = 0
    for text in documents:
        batch.append(text)
        characters += len(text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _empty_split(recipe: DataRecipe, split: str, encoder: Encoder) -> str:
    report = encoder.report
    kept = f"{report.documents_kept:,} of {report.documents_read:,} documents kept"
    what = f"data={recipe.name} gives no {split} tokens: {kept}"
    if not report.documents_kept:
        return f"{what}; give more text, of the 96-symbol set under tokenizer=char96"
    rule = f"one in {recipe.validation_every} is validation"
    return f"{what}, {rule}; give more text, or a smaller data.validation_every"
