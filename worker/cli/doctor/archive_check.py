"""Checks the archive: whether it can be reached, whether it is write-once, and how far it is behind."""

from __future__ import annotations

from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.clock import Clock
from worker.object_store.errors import ObjectStoreError
from worker.object_store.opening import open_object_store
from worker.object_store.store_probe import ProbedStore, probe_store
from worker.settings import Settings
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import IMPATIENT
from worker.store.audit.archive_lag import archive_lag
from worker.store.connection.pool import Redis

_LATE_S: Final = 4 * 3600
_DELETES: Final = {
    "refused": "write-once: nobody with these keys deletes or replaces an object",
    "versions": "it keeps versions; whether they are locked its object lock says",
    "deleted": "whoever has these keys can delete objects: the signatures show that, they don't prevent it",
}


async def archive_check(redis: Redis, clock: Clock, settings: Settings) -> DoctorCheck:
    """Return the check; without an archive it says how much it would take off Redis."""
    address, state = settings.archive_address, await ArchiveStates(redis).get()
    if address is None:
        if state is not None:
            detail = f"VIGIL_ARCHIVE is not set, but records up to {state.last} are in {state.address}"
            return DoctorCheck("archive", "problem", detail, "set it for every process, as it was")
        return DoctorCheck("archive", "ok", "none: the whole audit trail stays in Redis")
    try:
        found = await probe_store(open_object_store(address, settings.archive_keys, IMPATIENT))
    except ObjectStoreError as error:
        return DoctorCheck("archive", "problem", f"{address}: {error}", "see ops/runbook/ArchiveLag.md")
    return _described(found, str(address), await archive_lag(redis, clock), plain=_is_plain(settings))


def _described(found: ProbedStore, address: str, lag: float | None, *, plain: bool) -> DoctorCheck:
    if not found.writes_once:
        detail = f"{address} replaces objects that are to be written once: it ignores If-None-Match"
        return DoctorCheck("archive", "problem", detail, "use a store that takes conditional writes")
    detail = f"{address}; {_DELETES[found.deletes]}"
    if lag is not None and lag > _LATE_S:
        behind = f"{detail}; it is {lag / 3600:,.1f} hours behind"
        return DoctorCheck("archive", "warning", behind, "see ops/runbook/ArchiveLag.md")
    if plain:
        fix = "use https:// in AWS_ENDPOINT_URL, or a network of its own"
        return DoctorCheck("archive", "warning", f"{detail}; what goes there crosses the network unencrypted", fix)
    return DoctorCheck("archive", "ok", detail)


def _is_plain(settings: Settings) -> bool:
    endpoint = settings.aws_endpoint_url or ""
    local = endpoint.startswith(("http://127.", "http://localhost", "http://[::1]"))
    return (
        settings.archive is not None and settings.archive.startswith("s3") and endpoint[:7] == "http://" and not local
    )
