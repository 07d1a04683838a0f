"""Findings of a check: problems and remarks, each counted, with the first few examples."""

from collections import Counter
from typing import Any

EXAMPLES = 3


class Findings:
    """Problems and remarks about one file.

    Args:
        path (str): The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()

    def problem(self, what: str, where: str, value: Any = None) -> None:
        """Something that cannot be used."""
        self.counts[what] += 1
        examples = self.problems.setdefault(what, [])
        if len(examples) < EXAMPLES:
            examples.append(where if value is None else f'{where} has {_short(value)}')

    def remark(self, what: str, number: int = 1) -> None:
        """Something that is dealt with as the host library documents."""
        self.remarks[what] += number

    def error(self) -> str | None:
        """Return a message with all the problems, or ``None``."""
        if not self.counts:
            return None
        lines = [f'{self.path}: cannot be used']
        for what, examples in self.problems.items():
            rest = self.counts[what] - len(examples)
            more = f', and {rest} more' if rest else ''
            lines.append(f'  {what} ({self.counts[what]}): {", ".join(examples)}{more}')
        return '\n'.join(lines)

    def summary(self) -> str:
        """Return the remarks in one line."""
        return f'{self.path}: ' + ', '.join(f'{n} {what}' for what, n in self.remarks.items() if n)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
