"""The command: one line of result, one line of error, exit code 2."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from structlin.data.__main__ import DEFAULTS, main, parse
from structlin.errors import UserError


def test_it_prepares_then_checks_and_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two é"}\n')
    command = ["data=text", f"data.path={tmp_path}/rows.jsonl", "validation_every=2", f"root={tmp_path}/data"]
    main(command)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"prepared {tmp_path}/data/text-char96-")
    assert line.endswith(": 4 train + 4 validation tokens, 2 of 2 documents, 12.5000% of characters dropped")
    main(command)
    [again] = capsys.readouterr().out.splitlines()
    assert again == line.replace("prepared", "checked", 1)


def test_a_prepared_folder_is_checked_by_its_hashes(sotu_root: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    command = ["data=text", f"path={tmp_path}/rows.jsonl", "validation_every=2", f"root={tmp_path}/data"]
    main(command)
    [shard] = (tmp_path / "data").glob("*/train-00000.bin")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(UserError, match="has changed since it was made"):
        main(command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which data: data=cifar10|cifar100|cifar5m|digits|images|openwebtext|sotu|teacher|text"),
        (
            ["data=sotuu"],
            "did you mean 'sotu'? valid: cifar10, cifar100, cifar5m, digits, images, openwebtext, sotu, teacher, text",
        ),
        (
            ["data=sotu", "tokeniser=gpt2"],
            "'tokeniser=gpt2' is unknown; did you mean 'tokenizer'? valid: channels, column, data, depth, odd, out",
        ),
        (["data=sotu", "gpt2"], f"'gpt2' is no key=value; valid keys: {', '.join(DEFAULTS)}"),
        (["data=sotu", "path="], "'path=' has no value; write path=..."),
        (["data=sotu", "tokenizer=bpe"], "tokenizer=bpe: no such tokenizer; valid: char96, gpt2"),
        (["data=sotu", "validation_every=often"], "validation_every=often: write a whole number"),
        (["data=text"], "data=text needs data.path"),
    ],
)
def test_a_wrong_line_lists_what_is_valid(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as caught:
        main(arguments)
    assert message in str(caught.value)
    assert capsys.readouterr().out == ""


def test_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    main(["data=sotu", "--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {key} " in text for key in DEFAULTS)


def test_defaults() -> None:
    assert parse(["data=sotu"]) == {
        "data": "sotu", "tokenizer": "", "path": "", "column": "text", "validation_every": "0", "root": "data",
        "samples": "0", "seed": "0", "width": "1024", "depth": "6",
        "version": "0", "size": "0", "channels": "0", "odd": "",
        "vocabulary": "0", "out": "",
    }  # fmt: skip


def test_labels_are_made_then_extended_then_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data=teacher", "width=8", "depth=1", f"root={tmp_path}"]
    for samples, line in (
        ("1", "prepared * 65,536 train + 65,536 validation labels"),
        ("1e5", "prepared * 131,072 train + 65,536 validation labels"),
        ("1e5", "checked * 131,072 train + 65,536 validation labels"),
    ):
        main([*command, f"samples={samples}"])
        assert fnmatch(capsys.readouterr().out.strip(), line)


def test_as_a_process_an_error_is_one_line_and_code_2() -> None:
    command = [sys.executable, "-m", "structlin.data", "data=x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: data=x: no such data;")
    assert done.stderr.count("\n") == 1
