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
        out, unmatched = list(items), _UnmatchedCalls(events)
        for at, item in enumerate(out):
            event = unmatched.take(item, at)
            if event is not None and not item.get(event.field):
                out[at] = {**item, event.field: event.arguments}
        left = unmatched.remaining()
        fields = {event.field for event in left}
        known = {(item.get("type"), item.get("name"), item.get(field)) for item in out for field in fields}
        for event in sorted(left, key=lambda event: event.index):
            if event.name is not None and (event.type, event.name, event.arguments) not in known:
                out.insert(event.index, _new_item(event))
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


class _UnmatchedCalls:
    """The calls whose item was not found yet, by what an item may say of them: an answer may have thousands."""

    def __init__(self, events: dict[tuple[int, str], CallDone]) -> None:
        self._events = {place: event for place, event in events.items() if event.arguments}
        self._by_type: dict[str, dict[tuple[int, str], None]] = {}
        self._groups: dict[tuple[str, str, int | str], dict[tuple[int, str], None]] = {}
        for place, event in self._events.items():
            self._by_type.setdefault(event.type, {})[place] = None
            for group in self._groups_of(place, event.type):
                self._groups.setdefault(group, {})[place] = None

    def take(self, item: Item, at: int) -> CallDone | None:
        """Remove and return the call of an item: by id, or if either has none, by type and position."""
        kind, name = str(item.get("type")), item.get("id")
        calls = self._by_type.get(kind)
        if not calls:
            return None
        place = self._first((kind, "id", str(name))) if name else None
        if place is None:
            lacks_arguments = not item.get(self._events[next(iter(calls))].field)
            nameless = self._groups.get((kind, "nameless", ""), {})
            open_ = calls if not name or lacks_arguments else nameless
            place = self._first((kind, "at" if open_ is calls else "nameless at", at))
            if place is None and len(open_) == 1:
                place = next(iter(open_))
        return None if place is None else self._remove(place)

    def remaining(self) -> list[CallDone]:
        """Return the calls of no item."""
        return list(self._events.values())

    @staticmethod
    def _groups_of(place: tuple[int, str], kind: str) -> list[tuple[str, str, int | str]]:
        index, name = place
        nameless: list[tuple[str, str, int | str]] = [(kind, "nameless", ""), (kind, "nameless at", index)]
        return [(kind, "id", name), (kind, "at", index), *(nameless if not name else [])]

    def _first(self, group: tuple[str, str, int | str]) -> tuple[int, str] | None:
        return next(iter(self._groups.get(group, ())), None)

    def _remove(self, place: tuple[int, str]) -> CallDone:
        event = self._events.pop(place)
        del self._by_type[event.type][place]
        for group in self._groups_of(place, event.type):
            del self._groups[group][place]
        return event


def _new_item(event: CallDone) -> Item:
    """Return the item of a call whose own item never came."""
    call_id = event.call_id or event.item or f"call_{event.index}"
    item: Item = {"type": event.type, "id": event.item} if event.item else {"type": event.type}
    return {**item, "call_id": call_id, "name": event.name, event.field: event.arguments, "status": "completed"}
