"""Puts the arguments of tool calls that came in an event of their own into the output items that lack them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from worker.safety.output import Item
from worker.safety.stream import CallDone


class ToolCallArguments:
    """The arguments of such events by item."""

    __slots__ = ("_events", "_pieces")

    def __init__(self) -> None:
        self._events: dict[tuple[int, str], CallDone] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def add(self, event: CallDone) -> None:
        """Record that a call has begun, the next piece of its arguments, or that they are complete."""
        if event.is_piece:
            if (event.index, event.item) in self._events:  # else the first pieces may be missing
                self._pieces.setdefault((event.index, event.item), []).append(event.arguments)
            return
        before = self._events.get((event.index, event.item), event)
        self._events[event.index, event.item] = event._replace(
            arguments=event.arguments or before.arguments,
            name=event.name or before.name,
            call_id=event.call_id or before.call_id,
        )

    def fill(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """Return the items with the missing arguments; a call whose item never came becomes an item."""
        events = {place: self._with_pieces(place, event) for place, event in self._events.items()}
        out, unmatched = list(items), {place: event for place, event in events.items() if event.arguments}
        for at, item in enumerate(out):
            place = _matching_key(unmatched, item, at)
            if place is None:
                continue
            event = unmatched.pop(place)
            if not item.get(event.field):
                out[at] = {**item, event.field: event.arguments}
        known = {(item.get("type"), item.get("name"), item.get(e.field)) for item in out for e in unmatched.values()}
        for (index, _), event in sorted(unmatched.items(), key=lambda row: row[0][0]):
            if event.name is not None and (event.type, event.name, event.arguments) not in known:
                out.insert(index, _new_item(event))
        return tuple(out)

    def _with_pieces(self, place: tuple[int, str], event: CallDone) -> CallDone:
        """Return the event with its arguments; those that came only in pieces count if they are whole."""
        if event.arguments or place not in self._pieces:
            return event
        arguments = "".join(self._pieces[place])
        return event._replace(arguments=arguments) if event.field == "input" or _is_json(arguments) else event


def _is_json(arguments: str) -> bool:
    try:
        json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def _matching_key(events: dict[tuple[int, str], CallDone], item: Item, at: int) -> tuple[int, str] | None:
    """Return the key of the event about an item: by id, or if either has none, by type and position."""
    calls = [place for place, event in events.items() if event.type == item.get("type")]
    name = item.get("id")
    same = [place for place in calls if name and place[1] == str(name)]
    if same:
        return same[0]
    open_ = [place for place in calls if not (name and place[1]) or not item.get(events[place].field)]
    return next((place for place in open_ if place[0] == at), open_[0] if len(open_) == 1 else None)


def _new_item(event: CallDone) -> Item:
    """Return the item of a call whose own item never came."""
    call_id = event.call_id or event.item or f"call_{event.index}"
    item: Item = {"type": event.type, "id": event.item} if event.item else {"type": event.type}
    return {**item, "call_id": call_id, "name": event.name, event.field: event.arguments, "status": "completed"}
