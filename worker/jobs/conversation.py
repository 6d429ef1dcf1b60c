"""A conversation: the items of its turns in order, the ones that its app has added, and the turn that runs.

A turn is a job. Its items join the conversation when its response has completed; those of a blocked, failed or
cancelled one never do, so what was blocked is not sent again with the next turn. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

from worker.jobs.input_items import Json, KeptItem
from worker.jobs.stored_fields import StoredFields

_FIELDS: Final = frozenset({"id", "created", "metadata", "items", "turn"})


class Entry(NamedTuple):
    """An item, and the job that brought it; "" if the app added it. `newer`: what a newer release stored with it."""

    kept: KeptItem
    job_id: str = ""
    newer: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A job whose response is to join the conversation, and the items that it adds to its input.

    `newer`: what a newer release has stored with it.
    """

    job_id: str
    items: tuple[KeptItem, ...]
    begun_ms: int
    newer: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation(StoredFields):
    """One conversation of an app, and the version in which it was read."""

    id: str
    created_ms: int
    metadata: dict[str, str]
    entries: tuple[Entry, ...] = ()
    turn: Turn | None = None
    version: str = ""

    @property
    def items(self) -> list[KeptItem]:
        """Return the items in order."""
        return [entry.kept for entry in self.entries]

    @property
    def jobs(self) -> list[str]:
        """Return the jobs whose items it has, in order."""
        return list(dict.fromkeys(entry.job_id for entry in self.entries if entry.job_id))

    def with_items(self, items: Iterable[KeptItem], job_id: str = "") -> Self:
        """Return it with these items at the end; an id that it has already gets a number."""
        known = {entry.kept.id for entry in self.entries}
        added, numbers = [], dict[str, int]()
        for one in items:
            name = one.id
            while name in known:
                numbers[one.id] = numbers.get(one.id, 1) + 1  # goes on where the last of this id has ended
                name = f"{one.id}_{numbers[one.id]}"
            known.add(name)
            added.append(Entry(KeptItem(name, one.item), job_id))
        return replace(self, entries=(*self.entries, *added))

    def with_turn(self, job_id: str, items: Sequence[KeptItem], now_ms: int) -> Self:
        """Return it with a turn that begins."""
        return replace(self, turn=Turn(job_id, tuple(items), now_ms))

    def after_turn(self, output: Sequence[KeptItem] | None) -> Self:
        """Return it once its turn has ended; `output`: None if there was no answer."""
        if self.turn is None or output is None:
            return replace(self, turn=None)
        return replace(self.with_items((*self.turn.items, *output), self.turn.job_id), turn=None)

    def without_item(self, item_id: str) -> Self:
        """Return it without this item."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.kept.id != item_id))

    def without_job(self, job_id: str) -> Self:
        """Return it without the items that this job has brought, or would bring."""
        turn = None if self.turn is not None and self.turn.job_id == job_id else self.turn
        return replace(self, entries=tuple(entry for entry in self.entries if entry.job_id != job_id), turn=turn)

    def content(self) -> Json:
        """Return it as it is stored."""
        turn = self.turn
        return {
            "id": self.id,
            "created": self.created_ms,
            "metadata": self.metadata,
            "items": [[entry.kept.id, entry.kept.item, entry.job_id, *entry.newer] for entry in self.entries],
            "turn": None if turn is None else _turn_content(turn),
            **self.newer,
        }


def _turn_content(turn: Turn) -> list[Any]:
    return [turn.job_id, [list(one) for one in turn.items], turn.begun_ms, *turn.newer]


def conversation_of(content: dict[str, Any], version: str) -> Conversation:
    """Return the conversation that was stored so. Raises ValueError, LookupError, TypeError for anything else."""
    turn = content["turn"]
    return Conversation(
        id=content["id"],
        created_ms=int(content["created"]),
        metadata=content["metadata"],
        entries=tuple(_entry_of(*one) for one in content["items"]),
        turn=None if turn is None else _turn_of(*turn),
        version=version,
        newer={name: value for name, value in content.items() if name not in _FIELDS},
    )


def _entry_of(name: str, item: Json, job_id: str, *newer: Any) -> Entry:
    return Entry(KeptItem(name, item), job_id, newer)


def _turn_of(job_id: str, items: list[list[Any]], begun_ms: Any, *newer: Any) -> Turn:
    return Turn(job_id, tuple(KeptItem(*one) for one in items), int(begun_ms), newer)
