"""The input and output items of jobs as those of a conversation: their ids, how they are shown and sent again.

An item keeps the id under which its app saw it first. What is sent to the provider again names nothing that the
provider keeps: so a conversation goes on with another model, in another mode, and on another provider. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from worker.jobs import ids

Json = dict[str, Any]

MAX_ITEMS: Final = 1_000
MAX_BYTES: Final = 4 * 2**20
"""Of all that a request may continue; as much as one body may have, if that is more."""
MAX_VALUES: Final = 100_000
"""JSON values in all that a request may continue: a parser holds the process far longer for them than for text."""
_PREFIXES: Final = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_OWN: Final = re.compile(r"(?:msg|fc|fco|rs|item)_([0-9a-z]{1,64})_(live|in)?(\d{1,6})")
_ANSWERED: Final = frozenset({"message", "function_call", "custom_tool_call", "reasoning"})
"""Items whose id and status are labels of the answer; the provider needs neither to read them again."""
_WITH_STATUS: Final = frozenset({"message", "function_call", "function_call_output"})
_REFERENCE: Final = "item_reference"


class KeptItem(NamedTuple):
    """An item of a conversation, and its id there."""

    id: str
    item: Json


class OwnItem(NamedTuple):
    """What an id of Vigil's own says: the job, and whether it is one of its input, or the text that was streamed."""

    job_id: str
    kind: str
    """`in`: of the input; `live`: the message that was streamed; "": of the output."""
    place: int


def items_of(sent: str | Sequence[Json]) -> list[Json]:
    """Return the input of a request as items; text is the message of a user."""
    if isinstance(sent, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": sent}]}]
    return list(sent)


def output_id(item: Json, job_id: str, place: int) -> str:
    """Return the id of an item of a job's output: the provider's if it has one, else one of the job."""
    return _sent_id(item) or f"{_prefix(item)}_{_tail(job_id)}_{place}"


def kept_output(job_id: str, output: Iterable[Json]) -> list[KeptItem]:
    """Return the output of a job with the ids under which its app knows the items."""
    return [KeptItem(output_id(item, job_id, place), item) for place, item in enumerate(output)]


def kept_input(job_id: str, stored: Json) -> list[KeptItem]:
    """Return the whole input of a job with the ids of its items; `stored`: as the job keeps it.

    Its member `ids` has the ids of items that were known before the job, and None for others.
    """
    items, known = items_of(stored.get("input") or []), stored.get("ids") or ()
    return [
        KeptItem((known[place] if place < len(known) else None) or input_id(item, job_id, place), item)
        for place, item in enumerate(items)
    ]


def input_id(item: Json, job_id: str, place: int) -> str:
    """Return the id of an item of a job's input: the app's own if it sent one, else one of the job."""
    return _sent_id(item) or f"{_prefix(item)}_{_tail(job_id)}_in{place}"


def own_item(item_id: str) -> OwnItem | None:
    """Return what an id of Vigil's own says; None for any other id."""
    found = _OWN.fullmatch(item_id)
    if found is None or not ids.is_job_id(f"job_{found[1]}"):
        return None
    return OwnItem(f"job_{found[1]}", found[2] or "", int(found[3]))


def referenced_id(item: Json) -> str | None:
    """Return the id that an `item_reference` names; None for any other item."""
    kind, name = item.get("type"), item.get("id")
    is_reference = kind == _REFERENCE or (kind is None and item.keys() == {"id"})
    return name if is_reference and isinstance(name, str) and name else None


def sent_again(item: Json) -> Json | None:
    """Return an item of an earlier answer as it is sent to the provider; None for one that can't be.

    Reasoning that is not encrypted is with the provider that made it, and it alone can look it up.
    """
    kind = item.get("type", "message")
    if kind == "reasoning" and not item.get("encrypted_content"):
        return None
    if kind not in _ANSWERED or (kind == "message" and item.get("role") != "assistant"):
        return item
    out = {name: value for name, value in item.items() if name not in {"id", "status"}}
    if kind == "message" and isinstance(item.get("content"), list):
        out["content"] = [_text_alone(part) for part in item["content"]]
    return out


def _text_alone(part: Any) -> Any:
    """Return a part of an answer without what it says of itself: citations name what the provider keeps."""
    if isinstance(part, dict) and part.get("type") == "output_text":
        return {"type": "output_text", "text": part.get("text", "")}
    return part


def shown(one: KeptItem) -> Json:
    """Return an item as OpenAI lists it."""
    item = one.item
    kind = item.get("type", "message")
    out = {**item, "id": one.id, "type": kind}
    if kind in _WITH_STATUS:
        out["status"] = item.get("status") or "completed"
    if kind == "message":
        out["role"] = item.get("role", "user")
        out["content"] = _parts(out["role"], item.get("content"))
    return out


def _parts(role: Any, content: Any) -> list[Any]:
    if isinstance(content, list):
        return [_shown_part(role, part) for part in content]
    return [_shown_part(role, content if isinstance(content, str) else "")]


def _shown_part(role: Any, part: Any) -> Any:
    if isinstance(part, str):
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": part}
    if isinstance(part, dict) and part.get("type") == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    return part


def page_of(items: Sequence[KeptItem], limit: int, order: str, after: str | None) -> tuple[list[KeptItem], bool] | None:
    """Return (a page of items that are given oldest first, whether more follow); None if no item is `after`."""
    rows = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        place = next((place for place, one in enumerate(rows) if one.id == after), None)
        if place is None:
            return None
        rows = rows[place + 1 :]
    return rows[:limit], len(rows) > limit


def count_values(items: Iterable[Json], most: int) -> int:
    """Return how many JSON values the items have, with those inside of others; `most` + 1 if there are more."""
    left: list[Any] = list(items)
    seen = 0
    while left and seen + len(left) <= most:
        seen += 1
        one = left.pop()
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
    return min(seen + len(left), most + 1)


def _sent_id(item: Json) -> str | None:
    name = item.get("id")
    return name if isinstance(name, str) and name else None


def _prefix(item: Json) -> str:
    return _PREFIXES.get(str(item.get("type", "message")), "item")


def _tail(job_id: str) -> str:
    return job_id.removeprefix("job_")
