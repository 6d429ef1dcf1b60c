"""The archive of a client of Redis: the trail of that Redis goes on there, so it is attached to the client."""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis

from worker.jobs.errors import SettingsError
from worker.object_store.errors import ObjectStoreError
from worker.object_store.opening import Patience, open_object_store
from worker.settings import Settings
from worker.store.archive.audit_archive import AuditArchive

IMPATIENT: Final = Patience(connect=2, request=5, total=8)
"""For processes in which a person or an app waits."""


def archive_of(redis: ArqRedis) -> AuditArchive | None:
    """Return the archive of this client, or None without one."""
    archive: AuditArchive | None = vars(redis).get("archive")
    return archive


def attach_archive(redis: ArqRedis, settings: Settings, patience: Patience | None = None) -> None:
    """Attach the archive that the settings name; nothing without one. Raises SettingsError when it can't be opened."""
    address = settings.archive_address
    if address is None:
        return
    try:
        store = open_object_store(address, settings.archive_keys, patience)
    except ObjectStoreError as error:
        raise SettingsError([f"VIGIL_ARCHIVE: {error}"]) from None
    redis.archive = AuditArchive(store)
