"""A Redis command as a value, so that what builds a change need not send it."""

from __future__ import annotations

from collections.abc import Sequence

Word = str | bytes | int | float
Command = tuple[Word, ...]


def flatten(commands: Sequence[Command]) -> list[Word]:
    """Commands as the scripts read them: how many, then each with its word count before it."""
    out: list[Word] = [len(commands)]
    for command in commands:
        out.append(len(command))
        out.extend(command)
    return out
