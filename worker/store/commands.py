"""Represent a Redis command as a value, so that code that builds a change need not send it."""

from __future__ import annotations

from collections.abc import Sequence

CommandArg = str | bytes | int | float
Command = tuple[CommandArg, ...]


def flatten(commands: Sequence[Command]) -> list[CommandArg]:
    """Flatten commands into the arguments that `run_commands.lua` reads: how many, then each with its length first."""
    out: list[CommandArg] = [len(commands)]
    for command in commands:
        out.append(len(command))
        out.extend(command)
    return out
