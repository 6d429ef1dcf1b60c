"""Ways to tamper with the archive of a trail; each returns what a verification must say. ops/audit.md has the table."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import zstandard
from archived_trail import ArchivedTrail
from sealed_trail import OTHER_SIGNER

from worker.audit.archive_entry import ArchiveEntry, entry_name
from worker.audit.chain import canonical
from worker.store import keys
from worker.store.audit.trail import Trail

Tampering = Callable[[ArchivedTrail], Awaitable[str]]


async def _content(trail: ArchivedTrail, entry: ArchiveEntry) -> bytes:
    content = await trail.store.get(entry.name, 10**8)
    assert content is not None
    return content


async def a_segment_is_deleted(trail: ArchivedTrail) -> str:
    entry = await trail.entry(2)
    await trail.store.delete(entry.name)
    return rf"archive: segment 2 \({entry.name}: \d+ records, .*\) is missing"


async def one_byte_of_a_segment_is_changed(trail: ArchivedTrail) -> str:
    entry = await trail.entry(2)
    content = bytearray(await _content(trail, entry))
    content[len(content) // 2] ^= 1
    await trail.store.put(entry.name, bytes(content))
    return r"archive: segment 2 \(.*\) is not byte for byte what was archived"


async def a_record_of_a_segment_is_changed_and_it_is_compressed_anew(trail: ArchivedTrail) -> str:
    entry = await trail.entry(2)
    raw = zstandard.ZstdDecompressor().stream_reader(await _content(trail, entry)).read()
    lines = raw.split(b"\n")
    n = next(n for n, line in enumerate(lines) if b'"seq":3,' in line and n > 2)
    row = json.loads(lines[n])
    row["record"]["at"] = "2020-01-01T00:00:00Z"
    lines[n] = canonical(row)
    await trail.store.put(entry.name, zstandard.ZstdCompressor().compress(b"\n".join(lines)))
    return rf"archive: segment 2 \(.*\) is not byte for byte what was archived\n.*altered: .*{row['id']}"


async def a_segment_is_cut_short(trail: ArchivedTrail) -> str:
    entry = await trail.entry(3)
    await trail.store.put(entry.name, (await _content(trail, entry))[:-200])
    return r"archive: segment 3 \(.*\) is not byte for byte what was archived"


async def two_segments_are_exchanged(trail: ArchivedTrail) -> str:
    one, other = await trail.entry(2), await trail.entry(3)
    first, second = await _content(trail, one), await _content(trail, other)
    await trail.store.put(one.name, second)
    await trail.store.put(other.name, first)
    return r"archive: segment 2 \(.*\) was exchanged: what is there is segment 3"


async def the_last_entry_of_the_manifest_is_cut_off(trail: ArchivedTrail) -> str:
    await trail.store.delete(entry_name(4))
    return r"archive: manifest entry 4 is missing: the manifest was cut off behind entry 3"


async def all_entries_of_the_manifest_are_cut_off(trail: ArchivedTrail) -> str:
    for number in range(1, 5):
        await trail.store.delete(entry_name(number))
    return r"archive: the manifest's entries 1 to 4 are missing"


async def an_entry_is_removed_from_the_middle(trail: ArchivedTrail) -> str:
    await trail.store.delete(entry_name(2))
    return r"archive: manifest entry 2 is missing: entry 3 is there"


async def the_first_entry_is_removed(trail: ArchivedTrail) -> str:
    await trail.store.delete(entry_name(1))
    return r"archive: manifest entry 1 is missing: entry 2 is there"


async def an_entry_is_signed_with_another_key(trail: ArchivedTrail) -> str:
    entry = await trail.entry(2)
    body = {**entry.body, "key": OTHER_SIGNER.key_id}
    del body["signature"]
    body["signature"] = OTHER_SIGNER.sign(canonical(body))
    await trail.store.put(entry_name(2), canonical(body))
    return rf"archive: manifest entry 2 is signed by {OTHER_SIGNER.key_id}, which is not a trusted key"


async def an_entry_is_changed(trail: ArchivedTrail) -> str:
    entry = await trail.entry(2)
    await trail.store.put(entry_name(2), canonical({**entry.body, "count": 1}))
    return r"archive: the signature of manifest entry 2 does not fit it"


async def an_entry_is_in_the_place_of_another(trail: ArchivedTrail) -> str:
    await trail.store.put(entry_name(2), (await trail.entry(3)).line)
    return r"archive: manifest entry 2 is missing: entry 3 is in its place"


async def the_manifest_is_cut_and_redis_is_told_so(trail: ArchivedTrail) -> str:
    """Records left Redis, and the archive no longer names them: trimmed though not archived."""
    state = await trail.state()
    for number in (3, 4):
        await trail.store.delete(entry_name(number))
    body = json.loads(state.line)
    second = await trail.entry(2)
    body |= {"entry": 2, "entry_hash": second.hash, "seal": second.body["seal"], "last": second.last}
    await trail.redis.set(keys.ARCHIVE, canonical(body))
    return r"removed: checkpoints? [\d a-z]+ neither in the archive, which ends with [\d-]+, nor in Redis"


async def a_record_between_archive_and_redis_is_removed(trail: ArchivedTrail) -> str:
    end = (await trail.state()).last
    (first, *_) = await Trail(trail.redis, trail.sealed.clock).stored_page(f"({end}", count=1)
    await trail.redis.xdel(keys.AUDIT, first.id)
    return r"removed: .*(missing before|records sealed by checkpoint)"


async def records_are_removed_from_redis_that_are_not_archived(trail: ArchivedTrail) -> str:
    end = (await trail.state()).last
    rows = await Trail(trail.redis, trail.sealed.clock).stored_page(f"({end}", count=30)
    await trail.redis.xdel(keys.AUDIT, *(row.id for row in rows))
    return r"removed: .*(is|are) (missing|gone)|removed: \d+ of \d+ records sealed"


async def checkpoints_and_records_behind_the_archive_are_removed(trail: ArchivedTrail) -> str:
    state = await trail.state()
    first = json.loads(await trail.redis.lindex(keys.SEALS, 0))["number"]
    await trail.redis.ltrim(keys.SEALS, state.seal - first + 2, -1)
    return rf"removed: checkpoint {state.seal + 1} is neither in the archive, .* nor in Redis"


async def a_record_is_removed_from_redis_before_its_time(trail: ArchivedTrail) -> str:
    entry = await trail.entry(4)
    await trail.redis.xdel(keys.AUDIT, str(entry.body["first"]))
    return rf"removed: {entry.body['first']} is in the archive, but was removed from Redis before its time"


async def an_archived_record_is_changed_in_redis(trail: ArchivedTrail) -> str:
    rows = await Trail(trail.redis, trail.sealed.clock).stored_page("-", count=10**6)
    entry = await trail.entry(4)
    n = next(n for n, row in enumerate(rows) if row.id == entry.last)
    rows[n] = rows[n]._replace(record=rows[n].record.replace(b'"at":"2026', b'"at":"2020'))
    await trail.sealed.rebuild(rows)
    return rf"altered: {entry.last} in Redis is not the record that was archived"


async def the_retention_is_forged(trail: ArchivedTrail) -> str:
    """An entry that says that segments are over, so that nobody misses them, with a key of the forger's."""
    newest = await trail.entry(4)
    body = {name: newest.body[name] for name in ("format", "last", "seal", "seal_hash", "records", "at")}
    body |= {"kind": "retention", "number": 5, "previous": newest.hash, "key": OTHER_SIGNER.key_id}
    body |= {"through": 2, "upto": (await trail.entry(2)).last, "kept": [], "removed": 9, "holds": []}
    body["signature"] = OTHER_SIGNER.sign(canonical(body))
    await trail.store.put(entry_name(5), canonical(body))
    await trail.store.delete((await trail.entry(1)).name)
    return rf"archive: manifest entry 5 is signed by {OTHER_SIGNER.key_id}, which is not a trusted key"


TAMPERINGS: list[Tampering] = [
    a_segment_is_deleted,
    one_byte_of_a_segment_is_changed,
    a_record_of_a_segment_is_changed_and_it_is_compressed_anew,
    a_segment_is_cut_short,
    two_segments_are_exchanged,
    the_last_entry_of_the_manifest_is_cut_off,
    all_entries_of_the_manifest_are_cut_off,
    an_entry_is_removed_from_the_middle,
    the_first_entry_is_removed,
    an_entry_is_signed_with_another_key,
    an_entry_is_changed,
    an_entry_is_in_the_place_of_another,
    the_manifest_is_cut_and_redis_is_told_so,
    a_record_between_archive_and_redis_is_removed,
    records_are_removed_from_redis_that_are_not_archived,
    checkpoints_and_records_behind_the_archive_are_removed,
    a_record_is_removed_from_redis_before_its_time,
    an_archived_record_is_changed_in_redis,
    the_retention_is_forged,
]
