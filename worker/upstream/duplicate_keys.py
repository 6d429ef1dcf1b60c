"""Resolves duplicate keys in a JSON object: the value that reports a block counts, else the last one.

A parser that takes the last value hides an error that stands in the first (`"code": "cyber_policy", "code": "400"`);
one that takes the first hides it in the last. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from worker.safety.finish import Finish, finish_word, meaning
from worker.upstream.problems import is_block, problem_of

_WORST_FIRST: Final = ("error", "response.error", "response.failed", "failed", "response.incomplete", "incomplete")
"""Of several types or statuses the first of these counts, so that a completion does not hide an error."""
_MAX_COPIES: Final = 16


def merge_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs, with one value for each key."""
    data = dict(pairs)
    if len(data) == len(pairs):
        return data
    copies: dict[str, list[Any]] = {}
    for key, value in pairs:
        copies.setdefault(key, []).append(value)
    return {key: _choose(key, values) if len(values) > 1 else values[0] for key, values in copies.items()}


def _choose(key: str, values: list[Any]) -> Any:
    """Return the first value that reports a block; else the worst type or status, or the last value."""
    for value in values[:_MAX_COPIES]:
        if _is_block(key, value):
            return value
    if key in ("type", "status"):
        return next((word for word in _WORST_FIRST if word in values), values[-1])
    return values[-1]


def _is_block(key: str, value: Any) -> bool:
    if key == "finish_reason":
        word = finish_word(value)
        return word is not None and meaning(word) is Finish.BLOCK
    if key == "choices":
        choices = value if type(value) is list else [value]
        found = (pair for choice in choices[:_MAX_COPIES] if type(choice) is dict for pair in choice.items())
        return any(_is_block(*pair) for pair in found)
    return is_block(problem_of({key: value}))
