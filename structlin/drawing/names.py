"""What does a reader call a variant? moe-btt8 -> BTT-MoE (8 experts); low_rank -> low rank; btt@nddn -> btt nddn."""

from __future__ import annotations

MIXTURES = {"btt": "BTT-MoE", "ffn": "standard MoE", "dense": "dense-MoE", "low_rank": "low-rank-MoE"}


def readable(variant: str) -> str:
    """A variant in words; the rounding of the paper, which then holds for all, is not said."""
    words = []
    for word in variant.replace("/paper", "").split("+"):
        kind, experts, options = _mixture(word)
        if word.startswith("moe-") and experts:
            words.append(f"{MIXTURES.get(kind, kind)} ({', '.join([experts, *options])})")
        else:
            words.append(word.replace("_", " ").replace("@", " "))
    return ", ".join(words)


def mixture_of(variant: str) -> str:
    """The kind of mixture without its number of experts: btt+moe-ffn8 -> btt, standard MoE; empty without one."""
    experts = experts_of(variant)
    return readable(variant).replace(f" ({experts})", "").replace(f"({experts}, ", "(") if experts else ""


def experts_of(variant: str) -> int:
    """Experts of a variant, 0 without a mixture: moe-btt8 -> 8, btt+moe-ffn16-all -> 16."""
    found = [_mixture(word)[1] for word in variant.split("+") if word.startswith("moe-")]
    return int(found[0]) if found else 0


def _mixture(word: str) -> tuple[str, str, list[str]]:
    """moe-ffn16-all -> (ffn, 16, [all])."""
    kind, *options = word.removeprefix("moe-").split("-")
    name = kind.rstrip("0123456789")
    return name, kind[len(name) :], options
