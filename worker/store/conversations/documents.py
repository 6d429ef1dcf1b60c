"""Store the conversations of apps: each is one sealed document, and is kept for so long after its last change.

With master keys a document opens only under its app and its id, so one that was moved or altered is refused. Changes
are compare-and-set by version: of two at the same moment one is made again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import app_chain
from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, RecordUnreadable
from worker.jobs.stored_fields import NewerSchema, require_known_schema
from worker.store import keys
from worker.store.admission import app_quota
from worker.store.admission.app_quota import AppQuota
from worker.store.connection.lua_scripts import script
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.pool import keyring_of, require_permissions
from worker.store.errors import store_errors

_FIELD: Final = "conversation"


def conversation_name(app: str, conversation_id: str) -> str:
    """Return the name under which a conversation's document is sealed."""
    return f"{_FIELD}:{app}:{conversation_id}"


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A conversation's document as it was read, and its version; `expected` is "" for one that is to be created."""

    content: dict[str, Any]
    expected: str = ""


class ConversationDocuments:
    """The conversations in Redis."""

    def __init__(self, redis: ArqRedis, memory: MemoryGuard, clock: Clock) -> None:
        self._redis, self._keyring, self._memory, self._clock = redis, keyring_of(redis), memory, clock
        self._replace: Any = script(redis, "conversations/replace")
        self._remove: Any = script(redis, "conversations/remove")

    async def find(self, app: str, conversation_id: str) -> StoredDocument | None:
        """Return the app's conversation, or None if it has none of this id.

        Raises KeyMissing, ContentDamaged; RecordUnreadable for one that only a newer release can read.
        """
        key = keys.conversation(app, conversation_id)
        async with store_errors("read a conversation", key):
            version, raw = await self._redis.hmget(key, "v", "doc")
        if not version or not raw:
            return None
        content = self._keyring.unseal_named(conversation_name(app, conversation_id), raw)
        if not isinstance(content, dict):
            raise ContentDamaged("", _FIELD)
        try:
            return StoredDocument(require_known_schema(content), version.decode(errors="replace"))
        except NewerSchema:
            raise RecordUnreadable(key, "newer") from None
        except ValueError:
            raise ContentDamaged("", _FIELD) from None

    async def store(
        self, app: str, conversation_id: str, document: StoredDocument, keep_seconds: float, quota: AppQuota | None
    ) -> bool:
        """Store a new version of what was read; return whether nobody else had changed it meanwhile.

        `quota`: the app's, None for content that was accepted before. Raises QueueFull when it is used up,
        ContentTooLarge when this alone is more than that, StoreUnavailable.
        """
        require_permissions(self._redis)
        sealed = self._keyring.seal_named(conversation_name(app, conversation_id), document.content)
        version, bounds = self._clock.random_bytes(8).hex(), quota or AppQuota()
        args = [document.expected, version, sealed, int(keep_seconds * 1000), conversation_id, app_chain(app)]
        names = [keys.conversation(app, conversation_id), keys.content_sizes(app), keys.content_expiry(app)]
        async with store_errors("store a conversation"):
            if quota is not None:
                await self._memory.admit(len(sealed))
                bounds = replace(quota, memory=self._memory.app_bytes)
            args += [bounds.bytes or 0, bounds.memory, app_quota.JOB_BYTES, app_quota.EVENT_BYTES]
            verdict, *rest = await self._replace(keys=[*names, keys.LEGAL_HOLDS], args=args)
        if verdict == b"FULL":
            raise app_quota.exceeded(rest[0].decode(), int(rest[1]), len(sealed), bounds)
        return bool(verdict == b"OK")

    async def remove(self, app: str, conversation_id: str) -> bool:
        """Delete the app's conversation; return whether there was one."""
        require_permissions(self._redis)
        names = [keys.conversation(app, conversation_id), keys.content_sizes(app), keys.content_expiry(app)]
        async with store_errors("delete a conversation"):
            return bool(await self._remove(keys=names, args=[conversation_id]))

    async def is_held(self, app: str) -> bool:
        """Return whether a legal hold keeps everything of the app."""
        async with store_errors("read the holds", keys.LEGAL_HOLDS):
            return bool(await self._redis.sismember(keys.LEGAL_HOLDS, app_chain(app)))
