"""Output items of an answer as Responses items, and what they say. Pure; whoever made them keeps their shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

Item = dict[str, Any]
REPAIR_FLAGS = frozenset({"not_a_number", "malformed_content", "usage_not_believed", "replaced_characters"})
"""Flags of an attempt in whose answer something had to be replaced or left out."""


def text_length(items: Iterable[Item]) -> int:
    """Return how many characters of text and refusal the messages among `items` hold."""
    return sum(len(part.get(_TEXT_FIELD[part["type"]]) or "") for part in _parts(items))


def texts(items: Iterable[Item]) -> tuple[list[str], list[str]]:
    """Return (the texts, the refusals) of the messages among `items`, in order."""
    told: dict[str, list[str]] = {"output_text": [], "refusal": []}
    for part in _parts(items):
        told[part["type"]].append(part.get(_TEXT_FIELD[part["type"]]) or "")
    return told["output_text"], told["refusal"]


def message_item(parts: Iterable[tuple[Literal["text", "refusal"], str]]) -> Item:
    """Return a message item with these parts."""
    content = [
        {"type": "refusal", "refusal": text}
        if kind == "refusal"
        else {"type": "output_text", "text": text, "annotations": []}
        for kind, text in parts
    ]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


def has_refusal(item: Item) -> bool:
    """Return whether a message item has a refusal part."""
    return any(part["type"] == "refusal" for part in _parts([item]))


_TEXT_FIELD = {"output_text": "text", "refusal": "refusal"}


def _parts(items: Iterable[Item]) -> list[Item]:
    found: list[Item] = []
    for item in items:
        content = item.get("content") if item.get("type") == "message" else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in ("output_text", "refusal"):
                value = part.get(_TEXT_FIELD[part["type"]])
                if value is None or isinstance(value, str):
                    found.append(part)
    return found
