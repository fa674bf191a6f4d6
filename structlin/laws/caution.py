"""What should a reader of a law be told first? Named warnings, kept with the laws and shown on top of the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass

CAUTIONS = {
    "edge_of_grid": "the best run of a budget is the smallest or the largest model",
    "off_centre_grid": "an isoFLOP grid is not centred on its optimum, which biases the parabola even without noise",
    "wide_grid": "an isoFLOP grid spans so many sizes that a parabola is biased even without noise",
    "tokens_proportional": "D is nearly proportional to a power of N: alpha and beta cannot be told apart",
    "warmup_points": "evaluations inside warm-up were left out",
    "mixed_runs": "runs that differ in batch, data, task, optimizer or schedule were not pooled",
    "pooled_runs": "runs that differ in batch, data, task, optimizer or schedule were pooled, as asked",
    "mixed_convention": "FLOPs of different rows follow different counting conventions",
    "few_budgets": "fewer than five budgets: the exponents of the optimum rest on little",
    "few_runs": "few runs: intervals from resampling runs are rough",
    "few_points": "too few points for a fit",
    "one_curve": "one run makes the whole frontier",
    "one_width": "one model size only: N cannot be fitted",
    "bound": "a parameter ended at its bound",
    "frontier_bias": "gaps between the sizes and lucky runs move the frontier law by more than its noise",
    "isoflop_bias": "the optima and L(N, D) disagree on how the best size grows",
    "ill_conditioned": "the parameters of a fit trade off against each other; its predictions mean more than they do",
    "leverage": "one run alone moves an exponent by more than half of its interval",
    "not_converged": "a descent ended before its certificate held",
    "no_baseline": "the baseline of the multipliers has no runs",
    "no_overlap": "losses of a variant and of the baseline do not overlap",
    "rows_as_runs": "no column names the run, so every row is resampled alone: too narrow where rows share a run",
    "duplicate_rows": "identical rows are counted more than once",
    "assumed_tokens": "tokens were not in the table: steps times what a step reads",
    "converted": "the loss was converted from another quantity",
    "best_of": "of tuned runs the lowest loss of each size and tokens counts, which is lucky as well as tuned",
    "repeated_data": "data was read more than once and its worth could not be fitted: L(N, D) is refused",
    "plateau": "evaluations lie on the plateau of unigrams and bigrams",
    "misfit": "L(N, D) does not describe these runs: its intervals are withheld",
    "few_sizes": "three sizes or fewer: a law in N has no freedom left, and no interval",
    "rows_share_runs": "rows of one size share their luck as those of one run do: intervals are withheld",
    "short_range": "less than two decades of compute: multipliers alone mean something",
    "uneven_noise": "the noise of runs changes with their size: intervals are withheld",
    "uneven_compute": "runs of other training FLOPs than 6 N D (guides, another run before, nested ranks) lack L(N, D)",
    "nested_ranks": "losses of nested ranks lie above those of runs that were trained at that rank alone",
    "assumed_flops": "FLOPs were not in the table: C = 6 N D",
    "left_out": "rows that cannot enter a fit were left out",
    "thinned": "evaluations of long runs were thinned to keep the fit fast",
    "disagreement": "approaches disagree by more than their intervals",
    "spread_of_offset": "variants disagree on the irreducible loss by more than their intervals",
}


@dataclass(frozen=True)
class Caution:
    """One warning."""

    name: str
    """One of CAUTIONS."""
    text: str
    """What was seen, with its numbers."""
    variant: str | None = None
    """The variant it is about; None for all."""

    def __post_init__(self) -> None:
        assert self.name in CAUTIONS, self.name

    def record(self) -> dict[str, str | None]:
        """As it stands in laws.json."""
        return asdict(self)

    def line(self) -> str:
        """As it stands in a terminal."""
        where = f" [{self.variant}]" if self.variant else ""
        return f"{self.name}{where}: {self.text}"
