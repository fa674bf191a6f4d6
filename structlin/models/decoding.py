"""How does a trained GPT-2 go on with a text, token by token? With the keys and values of what it has read kept.

A step reads the new tokens alone: their queries meet the kept keys, normed and rotated once. The logits are those of
the whole text but for rounding. Where a text has filled the model's context its last half is read again.

Letters: N sequences, T new tokens, S tokens kept, H heads (of keys and values there may be fewer), K d_head, V
vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from structlin.models.attention import Attention
from structlin.models.gpt2 import GPT2, Block


class Decoder:
    """A model and the keys and values of the tokens it has read."""

    def __init__(self, model: GPT2) -> None:
        self.model = model.eval()
        self.context = model.context
        self._kept: list[tuple[Tensor, Tensor]] = []

    @property
    def length(self) -> int:
        """Tokens read so far."""
        return self._kept[0][0].shape[2] if self._kept else 0

    def forget(self) -> None:
        """Begin a text."""
        self._kept = []

    @torch.inference_mode()
    def read(self, tokens_NT: Tensor) -> Tensor:
        """Logits (N, T, V) of tokens that follow those read before. ValueError where they exceed the context."""
        begin, end = self.length, self.length + tokens_NT.shape[1]
        if end > self.context:
            raise ValueError(f"{end} tokens are more than the model's context of {self.context}")
        x = self.model.embedded(tokens_NT, begin)
        kept = []
        for index, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            mixed, keys_and_values = _attend(block.attention, block.attention_norm(x), self._kept[index : index + 1])
            x = torch.add(x, mixed, alpha=block.branch_scale)
            x = torch.add(x, block.ffn(block.ffn_norm(x)), alpha=block.branch_scale)
            kept.append(keys_and_values)
        self._kept = kept
        return self.model.last_map()(self.model.norm(x))


def _attend(
    attention: Attention, x: Tensor, before: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What new tokens mix of all so far; and keys (normed, rotated) and values, (N, H, S + T, K) each."""
    begin = before[0][0].shape[2] if before else 0
    q, k, v = attention.ready(*attention.heads(x), begin)
    for keys, values in before:
        k, v = torch.cat([keys, k], 2), torch.cat([values, v], 2)
    new, every = q.shape[2], k.shape[2]
    # A query sees what lies at or before its own place, which is the last of all for the last of them.
    sees = torch.ones(new, every, dtype=torch.bool, device=x.device).tril(every - new)
    grouped = q.shape[1] != k.shape[1]
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=attention.scale, enable_gqa=grouped)
    return attention.joined(mixed.transpose(1, 2)), (k, v)


def milliseconds(model: GPT2, rows: int, looks: int = 30) -> float:
    """Milliseconds a token where so many texts are read side by side, a token of each at a time, in mid-context.

    The least of some steps, which other work on the machine lengthens least, divided by the texts.
    """
    decoder, device = Decoder(model), model.tokens.device
    token_N1 = torch.zeros(rows, 1, dtype=torch.int64, device=device)
    read = min(decoder.context - 1, decoder.context // 2)
    if read:
        decoder.read(token_N1.expand(rows, read))
    kept, seconds = decoder._kept, []
    for _ in range(2 + looks):
        decoder._kept = kept
        _wait(device)
        began = time.perf_counter()
        decoder.read(token_N1)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds[2:]) / rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def continued(
    decoder: Decoder, prompt_T: Tensor, *, temperature: float, top_k: int, generator: torch.Generator, among: int
) -> Iterator[int]:
    """Token after token that follows a prompt (at least one token), without end.

    ``temperature`` 0: always the likeliest. ``top_k`` 0: of all; else of the likeliest so many. ``among``: ids below it
    alone, where a vocabulary is padded.
    """
    text = prompt_T.tolist()
    decoder.forget()
    new = text[-decoder.context :]
    while True:
        if decoder.length + len(new) > decoder.context:
            decoder.forget()
            new = text[-max(1, decoder.context // 2) :]
        logits_V = decoder.read(torch.tensor([new], device=decoder.model.tokens.device))[0, -1, :among].float().cpu()
        token = _drawn(logits_V, temperature, top_k, generator)
        text.append(token)
        new = [token]
        yield token


def _drawn(logits_V: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k:
        least = logits_V.topk(min(top_k, len(logits_V))).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    return int(torch.multinomial((logits_V / temperature).softmax(-1), 1, generator=generator))
