"""How many different cases were tried, and what came of them."""

from collections import Counter, defaultdict

outcomes: dict[str, Counter] = defaultdict(Counter)
_seen: dict[str, set] = defaultdict(set)


def tally(what: str, outcome: str, case) -> None:
    """Count a case that went as it should, unless it was there already."""
    key = repr(case)
    if key not in _seen[what]:
        _seen[what].add(key)
        outcomes[what][outcome] += 1


def lines() -> list[str]:
    """What is said at the end of a run."""
    return [
        f'{sum(counts.values())} different {what}: '
        + ', '.join(f'{n} {outcome}' for outcome, n in sorted(counts.items()))
        for what, counts in sorted(outcomes.items())
    ]
