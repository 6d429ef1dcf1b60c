"""A Redis command as a value, so that what builds a change need not send it."""

from __future__ import annotations

from collections.abc import Sequence

CommandArg = str | bytes | int | float
Command = tuple[CommandArg, ...]


def flatten(commands: Sequence[Command]) -> list[CommandArg]:
    """Commands as the scripts read them: how many, then each with its word count before it."""
    out: list[CommandArg] = [len(commands)]
    for command in commands:
        out.append(len(command))
        out.extend(command)
    return out
