"""What does a reader call a variant? moe-btt8 -> BTT-MoE (8 experts); low_rank -> low rank; btt@nddn -> btt nddn.

Among others a name says only what differs: where all structures shown are btt/paper+fixed-norm and the like, they are
called btt and low rank, and the title says once what they share (``titled``). Ids and files keep whole names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

MIXTURES = {"btt": "BTT-MoE", "ffn": "standard MoE", "dense": "dense-MoE", "low_rank": "low-rank-MoE"}
PAPER = "/paper"
"""What ends the name of a structure whose sizes are rounded as the published code does."""


def readable(variant: str, among: Iterable[str] = ()) -> str:
    """A variant in words, of those ``among`` which it is shown only by what tells it apart from them."""
    words = []
    for word in short(variant, among).split("+"):
        kind, experts, options = _mixture(word)
        if word.startswith("moe-") and experts:
            words.append(f"{MIXTURES.get(kind, kind)} ({', '.join([experts, *options])})")
        else:
            words.append(word.replace(PAPER, " (paper)").replace("_", " ").replace("@", " "))
    return ", ".join(words)


def short(variant: str, among: Iterable[str] = ()) -> str:
    """A variant without what all structures of ``among`` share: btt/paper+fixed-norm -> btt."""
    return _shortened(tuple(sorted({variant, *among}))).get(variant, variant)


def shared(variants: Iterable[str]) -> str:
    """What all of them share and ``short`` leaves out: ``all but dense: fixed-norm, paper's rounding``; else empty."""
    every = tuple(sorted(set(variants)))
    options = ", ".join("paper's rounding" if option == PAPER else option for option in _shared(every))
    return f"{'all but dense' if 'dense' in every else 'all'}: {options}" if options else ""


def titled(title: str, variants: Iterable[str]) -> str:
    """A title that says once what the variants below it share."""
    said = shared(variants)
    return f"{title} ({said})" if said else title


def shortened(record: Any, variants: Iterable[str]) -> Any:
    """A record of plain values in which every text and key that is one of the variants is its short name."""
    return _renamed(record, _shortened(tuple(sorted(variants))))


def _renamed(record: Any, names: Mapping[str, str]) -> Any:
    if isinstance(record, str):
        return names.get(record, record)
    if isinstance(record, dict):
        return {names.get(key, key): _renamed(value, names) for key, value in record.items()}
    return [_renamed(one, names) for one in record] if isinstance(record, list | tuple) else record


@lru_cache(maxsize=256)
def _shortened(variants: tuple[str, ...]) -> dict[str, str]:
    """Every variant's short name, no two alike."""
    dropped = _shared(variants)
    return {variant: _without(variant, dropped) for variant in variants}


@lru_cache(maxsize=256)
def _shared(variants: tuple[str, ...]) -> tuple[str, ...]:
    """Options of all structures but dense, which has none; none for one alone, or where two names would be alike."""
    options = [_options(variant) for variant in variants if variant != "dense"]
    if len(variants) < 2 or not options:
        return ()
    found = tuple(option for option in options[0] if all(option in others for others in options))
    return found if len({_without(variant, found) for variant in variants}) == len(variants) else ()


def _options(variant: str) -> tuple[str, ...]:
    """btt/paper+moe-ffn8+fixed-norm -> (fixed-norm, /paper): what follows a structure and is no mixture."""
    first, *rest = variant.split("+")
    found = tuple(word for word in rest if not word.startswith("moe-"))
    return (*found, PAPER) if first.endswith(PAPER) else found


def _without(variant: str, options: tuple[str, ...]) -> str:
    first, *rest = variant.split("+")
    first = first.removesuffix(PAPER) if PAPER in options else first
    return "+".join([first, *(word for word in rest if word not in options)])


def mixture_of(variant: str, among: Iterable[str] = ()) -> str:
    """The kind of mixture without its number of experts: btt+moe-ffn8 -> btt, standard MoE; empty without one."""
    experts = experts_of(variant)
    return readable(variant, among).replace(f" ({experts})", "").replace(f"({experts}, ", "(") if experts else ""


def experts_of(variant: str) -> int:
    """Experts of a variant, 0 without a mixture: moe-btt8 -> 8, btt+moe-ffn16-all -> 16."""
    found = [_mixture(word)[1] for word in variant.split("+") if word.startswith("moe-")]
    return int(found[0]) if found else 0


def _mixture(word: str) -> tuple[str, str, list[str]]:
    """moe-ffn16-all -> (ffn, 16, [all])."""
    kind, *options = word.removeprefix("moe-").split("-")
    name = kind.rstrip("0123456789")
    return name, kind[len(name) :], options
