"""Token by token a model says what it says of the whole text, through windows and few rows as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from structlin.config.moe import MoeConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.kernels.products import face
from structlin.models.build import build_model
from structlin.models.decoding import Decoder, continued
from structlin.models.gpt2 import GPT2
from structlin.nn import merged
from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.merged import ALWAYS, merge
from structlin.structure import plan_theta, theta_of
from tests.tiny import tiny

WIDE = replace(tiny().model, dtype="float64")
THREE = StructureConfig(str(theta_of("btt", arguments={"factors": 3})))
CASES = {
    **{name: tiny(name, model=WIDE) for name in ("dense", "btt", "kronecker", "low_rank", "g2")},
    "three blocks": tiny("tt3", model=replace(WIDE, num_layers=3)),
    "three factors": replace(
        tiny(model=WIDE), structure=StructureConfig(str(theta_of("btt", arguments={"factors": 3})))
    ),
    "mixture": tiny("dense", model=WIDE, moe=MoeConfig("btt", 4, 2)),
}


def trained(science: Science) -> GPT2:
    """A model whose every weight matters: the maps that start at zero do not stay there."""
    model = build_model(science)
    assert isinstance(model, GPT2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_whole_text(name: str) -> None:
    model = trained(CASES[name])
    tokens_NT = torch.randint(96, (2, model.positions.shape[0]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(tokens_NT)
    decoder = Decoder(model)
    for parts in ([1] * 16, [16], [5, 1, 1, 9], [15, 1]):
        decoder.forget()
        found = [decoder.read(part) for part in tokens_NT.split(parts, 1)]
        torch.testing.assert_close(torch.cat(found, 1), wanted, rtol=1e-10, atol=1e-11)
        assert decoder.length == 16


def test_a_text_beyond_the_context_is_refused_or_read_again() -> None:
    model = trained(CASES["btt"])
    decoder = Decoder(model)
    decoder.read(torch.zeros(1, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        decoder.read(torch.zeros(1, 1, dtype=torch.int64))


def written(model: GPT2, prompt: list[int], count: int, **options: float) -> list[int]:
    choices = {"temperature": 1.0, "top_k": 0, "among": 96, **options}
    generator = torch.Generator().manual_seed(int(choices.pop("seed", 0)))
    tokens: Iterator[int] = continued(Decoder(model), torch.tensor(prompt), generator=generator, **choices)  # type: ignore[arg-type]
    return list(islice(tokens, count))


def test_the_likeliest_follow_one_another_as_by_whole_texts_and_through_windows() -> None:
    model = trained(CASES["dense"])
    text = [3, 1, 4]
    window = list(text)
    with torch.no_grad():
        for _ in range(40):
            if len(window) > 16:
                window = window[-8:]
            text.append(int(model(torch.tensor([window]))[0, -1].argmax()))
            window.append(text[-1])
    assert written(model, [3, 1, 4], 40, temperature=0) == text[3:]


def test_choices_follow_the_seed_the_temperature_and_the_likeliest() -> None:
    model = trained(CASES["btt"])
    one = written(model, [5], 60)
    assert one == written(model, [5], 60)
    assert one != written(model, [5], 60, seed=1)
    assert written(model, [5], 20, top_k=1) == written(model, [5], 20, temperature=0)
    assert written(model, [5], 20, temperature=1e-6) == written(model, [5], 20, temperature=0)
    assert max(written(model, [5], 200, temperature=50, among=7)) < 7
    assert len(set(written(model, [5], 400, temperature=50))) > 80


def test_a_long_prompt_counts_by_its_end() -> None:
    model = trained(CASES["btt"])
    prompt = torch.randint(96, (50,), generator=torch.Generator().manual_seed(2)).tolist()
    assert written(model, prompt, 1, temperature=0) == written(model, prompt[-16:], 1, temperature=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("most_rows", [ALWAYS, 3, None])
def test_merged_layers_say_what_factors_say(name: str, most_rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token, where the matrices serve, and as a whole, where they may not; a crossover of any height."""
    monkeypatch.setattr(merged, "crossover", lambda layer: 2)
    model, other = trained(CASES[name]), trained(CASES[name])
    found = merge(other, most_rows)
    # Experts are no single linears, and dense layers are merged already.
    assert len(found) == (0 if name in ("dense", "mixture") else 6 * len(other.blocks))
    assert set(found.values()) <= {2 if most_rows is None else most_rows}
    tokens_NT = torch.randint(96, (2, 16), generator=torch.Generator().manual_seed(0))
    decoders = Decoder(model), Decoder(other)
    for part in tokens_NT.split([1, 1, 9, 1, 4], 1):
        by_factors, by_matrices = (decoder.read(part) for decoder in decoders)
        torch.testing.assert_close(by_matrices, by_factors, rtol=1e-10, atol=1e-10)
    text = [written(one, [3, 1], 30, temperature=0) for one in (model, other)]
    assert text[0] == text[1]


def test_merged_layers_train_by_their_factors_and_serve_few_rows_by_the_matrix() -> None:
    plan = plan_theta(theta_of("btt", arguments={"rank": 2}), 32, 64)
    layer = make_linear(plan, LinearOptions(32, bias=True)).double()
    both = merged.MergedLinear(layer, 4)
    x = torch.randn(9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(both(x[:2]), layer(x[:2]))
    assert both(x[:2]).requires_grad
    both.weight.zero_()
    with torch.no_grad():
        assert torch.equal(both(x[:4]), layer.bias.expand(4, -1))
        assert torch.equal(both(x[:2, None].expand(2, 2, -1)), layer.bias.expand(2, 2, -1))
        assert torch.equal(both(x), layer(x))
    assert "weight" not in both.state_dict()


def test_a_crossover_is_where_the_matrix_stops_being_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_linear(plan_theta(theta_of("btt"), 32, 64), LinearOptions(32))
    for last in (0, 1, 8, 256):
        # By turns the matrix and the factors of 1, 2, 4, ... rows are timed.
        turns = iter([time for rows in merged.ROWS for time in ([1.0, 2.0] if rows <= last else [2.0, 2.0])])
        monkeypatch.setattr(merged, "_seconds", lambda run, device, turns=turns: run() is None or next(turns))
        assert merged.crossover(layer) == last


@pytest.mark.parametrize("name", ["btt", "low_rank", "g2", "tt3", "btt11"])
def test_few_rows_give_what_many_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_linear(plan_theta(theta_of(name), 128, 128), LinearOptions(128))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    x = torch.randn(face.FEW_ROWS, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = layer(x)
    plain = []
    # What serves few rows alone: a few large products have them first.
    sizes = layer.sizes
    serves = "two_products" if max(sizes.g, sizes.f) <= face.FEW_GROUPS else "tokens_last"
    real = getattr(face, serves)
    monkeypatch.setattr(face, serves, lambda *given: plain.append(1) or real(*given))
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-6)
        assert plain == [1]
        layer(torch.cat([x, x]))
    with torch.no_grad():
        assert torch.equal(layer(x), wanted)
    assert plain == [1]
