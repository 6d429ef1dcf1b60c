"""Reads and makes the output items of an answer in the shape of Responses items. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

Item = dict[str, Any]
REPAIR_FLAGS = frozenset({"not_a_number", "malformed_content", "usage_not_believed", "replaced_characters"})
"""Flags of an attempt whose answer had to be repaired: something was replaced or left out."""


def text_length(items: Iterable[Item]) -> int:
    """Return the number of characters of text and refusal in the messages among `items`."""
    return sum(len(part.get(_TEXT_FIELD[part["type"]]) or "") for part in _parts(items))


def texts(items: Iterable[Item]) -> tuple[list[str], list[str]]:
    """Return (the texts, the refusals) of the messages among `items`, in order."""
    found_texts: dict[str, list[str]] = {"output_text": [], "refusal": []}
    for part in _parts(items):
        found_texts[part["type"]].append(part.get(_TEXT_FIELD[part["type"]]) or "")
    return found_texts["output_text"], found_texts["refusal"]


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
