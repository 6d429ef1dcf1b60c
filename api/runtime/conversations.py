"""The conversations of apps: create, read, change, delete, and the turns that responses make in them.

One turn runs at a time. The first request to read or change a conversation after its turn has ended adds the turn's
items; until then they are with the job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from api.runtime.key_cache import KeyCache
from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.conversation import Conversation, conversation_of
from worker.jobs.errors import ContentDamaged, Refused, StoreFull, StoreUnavailable
from worker.jobs.input_items import MAX_BYTES, MAX_ITEMS, MAX_VALUES, KeptItem, count_values, kept_output
from worker.jobs.states import Status
from worker.jobs.view import dumps
from worker.settings import Settings
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.app_retention import effective
from worker.store.conversations.documents import ConversationDocuments, StoredDocument
from worker.store.jobs.repository import Jobs
from worker.store.values import PARSE_ERRORS

_MAX_TRIES: Final = 5
_SUBMIT_MS: Final = 60_000
"""After so long a turn whose job does not exist is given up: its process died before the job was created."""
_PREFIX: Final = "conv"
LOCKED: Final = (
    "Another response is being made in this conversation, or it was changed just now. Try again once that has ended."
)
_NOT_FOUND: Final = "There is no such conversation, or it is no longer kept."


def not_found() -> Refused:
    """Return the error for a conversation that the app does not have."""
    return Refused("conversation_not_found", _NOT_FOUND, 404)


def locked() -> Refused:
    """Return the error for a conversation in which a turn runs."""
    return Refused("conversation_locked", LOCKED, 409)


class Conversations:
    """The conversations of all apps."""

    def __init__(
        self, documents: ConversationDocuments, jobs: Jobs, clock: Clock, settings: Settings, keys: KeyCache
    ) -> None:
        self._documents, self._jobs, self._clock = documents, jobs, clock
        self._settings, self._keys, self._max_wait = settings, keys, settings.max_ahead_seconds
        self._most = max(MAX_BYTES, settings.body_limit)

    async def create(
        self, app: str, items: Sequence[dict[str, object]], metadata: dict[str, str], quota: AppQuota
    ) -> Conversation:
        """Create a conversation of these items. Raises QueueFull, ContentTooLarge, StoreUnavailable."""
        now = to_ms(self._clock.now())
        made = Conversation(ids.new_id(_PREFIX, now, self._random()), now, metadata).with_items(self.named(items))
        if not await self._store(app, made, self._keep(app), quota):
            raise locked()
        return made

    def named(self, items: Sequence[dict[str, object]]) -> list[KeptItem]:
        """Return items of an app with ids of their own."""
        now = to_ms(self._clock.now())
        return [
            KeptItem(
                ids.new_id("msg" if item.get("type", "message") == "message" else "item", now, self._random()),
                {name: value for name, value in item.items() if name != "id"},
            )
            for item in items
        ]

    async def find(self, app: str, conversation_id: str) -> Conversation:
        """Return the conversation, with the items of a turn that has ended. Raises Refused if there is none."""
        found = await self._read(app, conversation_id)
        ended = await self._after_turn(app, found)
        if ended is not found:
            try:
                await self._store(app, ended, self._keep(app), None)
            except StoreFull:
                return ended
            return await self._read(app, conversation_id)
        return found

    async def ready(self, app: str, conversation_id: str) -> Conversation:
        """Return the conversation if no turn runs in it. Raises Refused."""
        found = await self.find(app, conversation_id)
        if found.turn is not None:
            raise locked()
        return found

    async def change(
        self, app: str, conversation_id: str, change: Callable[[Conversation], Conversation], quota: AppQuota | None
    ) -> Conversation:
        """Store what `change` makes of the conversation, and return it. It may be called again.

        `quota`: None if it can't grow. Raises Refused if there is none, a turn runs in it or it would be too large,
        QueueFull, ContentTooLarge.
        """
        for _ in range(_MAX_TRIES):
            found = await self.ready(app, conversation_id)
            changed = change(found)
            if await self._store(app, changed, self._keep(app), quota):
                return changed
        raise locked()

    async def shrink(
        self, app: str, conversation_id: str, change: Callable[[Conversation], Conversation]
    ) -> Conversation:
        """Store what `change` leaves of it, and return it. Raises as `change`, and Refused for a legal hold."""
        await self._must_not_be_held(app)
        return await self.change(app, conversation_id, change, None)

    async def set_metadata(self, app: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata, also while a turn runs. Raises Refused if there is no such conversation."""
        for _ in range(_MAX_TRIES):
            found = await self.find(app, conversation_id)
            changed = replace(found, metadata=metadata)
            if await self._store(app, changed, self._kept_for(app, changed), None):
                return changed
        raise locked()

    async def remove(self, app: str, conversation_id: str) -> None:
        """Delete the conversation; its responses stay. Raises Refused if there is none, or a legal hold on the app."""
        await self._must_not_be_held(app)
        if not await self._documents.remove(app, conversation_id):
            raise not_found()

    async def _must_not_be_held(self, app: str) -> None:
        if await self._documents.is_held(app):
            raise Refused("legal_hold", "The conversation is kept for a legal case; nothing of it can be deleted now.")

    # -- turns

    async def begin(
        self, app: str, before: Conversation, job_id: str, items: Sequence[KeptItem], seconds: float, quota: AppQuota
    ) -> None:
        """Begin a turn: this job, which is about to be created and ends within `seconds`, adds these items.

        Raises Refused if the conversation has changed since it was read.
        """
        begun = before.with_turn(job_id, items, to_ms(self._clock.now()))
        if not await self._store(app, begun, self._keep(app) + seconds, quota):
            raise locked()

    async def remove_job(self, app: str, conversation_id: str, job_id: str) -> None:
        """Take out what a job has added, or its turn; does nothing if there is no such conversation any more.

        Raises Refused if others change the conversation all the time, or a legal hold keeps it.
        """
        await self._must_not_be_held(app)
        for _ in range(_MAX_TRIES):
            try:
                changed = (await self._read(app, conversation_id)).without_job(job_id)
            except Refused:
                return
            if await self._store(app, changed, self._kept_for(app, changed), None):
                return
        raise locked()

    async def give_up(self, app: str, conversation_id: str, job_id: str) -> None:
        """End a turn whose job was refused; if that fails, the turn ends by itself after a minute."""
        with contextlib.suppress(Refused, StoreUnavailable):
            await self.remove_job(app, conversation_id, job_id)

    async def _after_turn(self, app: str, found: Conversation) -> Conversation:
        """Return the conversation after its turn, if that has ended."""
        turn = found.turn
        if turn is None:
            return found
        stored = await self._jobs.load(turn.job_id, locked=True)
        if stored is None or stored.job.app != app:
            over = to_ms(self._clock.now()) - turn.begun_ms > _SUBMIT_MS
            return found.after_turn(None) if over else found
        job = stored.job
        if not job.settled:
            return found
        if job.status is not Status.COMPLETED or job.content_removed is not None:
            return found.after_turn(None)
        try:
            answer = await self._jobs.load_output(job.id)
        except ContentDamaged:  # the response itself says so; the conversation goes on without it
            answer = None
        if answer is None:
            return found.after_turn(None)
        return found.after_turn(kept_output(job.id, answer.get("output") or []))

    # -- the store

    def _keep(self, app: str) -> int:
        return effective(self._keys.retention_of(app), self._settings)["result"]

    def _kept_for(self, app: str, found: Conversation) -> float:
        """Return the seconds that it is kept: a turn that runs may take long, and is to find it."""
        return self._keep(app) if found.turn is None else self._keep(app) + self._max_wait

    async def _read(self, app: str, conversation_id: str) -> Conversation:
        document = await self._documents.find(app, conversation_id) if _is_id(conversation_id) else None
        if document is None:
            raise not_found()
        try:
            return conversation_of(document.content, document.expected)
        except PARSE_ERRORS:
            raise ContentDamaged("", "conversation") from None

    async def _store(self, app: str, made: Conversation, seconds: float, quota: AppQuota | None) -> bool:
        """Store it; `quota`: None for what adds nothing that was not accepted before."""
        content = made.content()
        if quota is not None and made.turn is None:  # a turn's request was measured with all that it continues
            count, size = len(made.entries), len(dumps(content))
            many_values = count_values([one.item for one in made.items], MAX_VALUES) > MAX_VALUES
            if count > MAX_ITEMS or size > self._most or many_values:
                detail = (
                    f"The conversation would have {count} items and {size} bytes, and may have at most {MAX_ITEMS} "
                    f"items, {self._most} bytes and {MAX_VALUES} JSON values, with inner ones: delete some, "
                    "or begin a new one."
                )
                raise Refused("input_too_large", detail, 413)
        return await self._documents.store(app, made.id, StoredDocument(content, made.version), seconds, quota)

    def _random(self) -> bytes:
        return self._clock.random_bytes(ids.RANDOM_BYTES)


def _is_id(text: str) -> bool:
    """Return whether the text could be a conversation's id; anything else needs no look into Redis."""
    return text.startswith(f"{_PREFIX}_") and ids.is_job_id("job_" + text.removeprefix(f"{_PREFIX}_"))
