"""Store the text of running answers in chunks, so that a crash loses none of it and watchers see it grow.

A chunk is (sequence, offset, text): the last sequence number of the provider that it covers, how many characters came
before it, the characters. Chunks of hundreds of jobs go in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, RecordUnreadable
from worker.store import keys
from worker.store.connection.job_keys import ciphers_for_writing, ciphers_of
from worker.store.envelope import JobCipher, MasterKeyring, text_field
from worker.store.errors import store_errors
from worker.store.jobs.scripts import Scripts, SealedChunk
from worker.store.values import report_unreadable

_PLAIN = MasterKeyring().ephemeral("")


class OutputChunk(NamedTuple):
    """A stretch of an attempt's text; `sequence` -1 where the provider numbers nothing."""

    sequence: int
    offset: int
    text: str


class PendingChunk(NamedTuple):
    """A chunk to be stored: of which job and attempt, under which lease."""

    job_id: str
    token: str
    attempt: int
    chunk: OutputChunk


class OutputChunks:
    """The chunks in Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis, self._scripts = redis, Scripts(redis)

    async def append(self, outgoing: Sequence[PendingChunk]) -> tuple[set[str], list[str]]:
        """Append and publish chunks; return the jobs that somebody watches, and those whose lease is lost."""
        ciphers = await ciphers_for_writing(self._redis, {one.job_id for one in outgoing})
        sealed = [
            SealedChunk(job_id, token, attempt, ciphers[job_id].seal(text_field(attempt), chunk))
            for job_id, token, attempt, chunk in outgoing
        ]
        async with store_errors("keep the text so far"):
            return await self._scripts.append_output(sealed)

    async def read(self, job_id: str, attempt: int) -> list[OutputChunk]:
        """Return the chunks of an attempt, in order, up to the first unreadable one. Raises RecordUnreadable."""
        return (await self.read_checked(job_id, attempt))[0]

    async def read_checked(self, job_id: str, attempt: int) -> tuple[list[OutputChunk], bool]:
        """Return the chunks of an attempt up to the first unreadable one, and whether these are all of them."""
        async with store_errors("read the text so far", keys.text(job_id, attempt)):
            rows = await self._redis.lrange(keys.text(job_id, attempt), 0, -1)
        if not rows:
            return [], True
        found = await ciphers_of(self._redis, [job_id])
        if job_id not in found:
            return [], False  # the job is gone
        cipher, name = found[job_id], text_field(attempt)
        chunks = list[OutputChunk]()
        for row in rows:
            try:
                chunks.append(_parse_chunk(job_id, cipher.unseal(name, row)))
            except ContentDamaged:
                report_unreadable(RecordUnreadable(keys.text(job_id, attempt), "wrong_shape"))
                return chunks, False
        return chunks, True


def _parse_chunk(job_id: str, content: Any) -> OutputChunk:
    """Parse the content of a value as a chunk. Raises ContentDamaged."""
    match content:
        case [int(sequence), int(offset), str(text)]:
            return OutputChunk(sequence, offset, text)
        case _:
            raise ContentDamaged(job_id, "text")


def parse_message(raw: bytes, cipher: JobCipher | None) -> tuple[str, int, OutputChunk]:
    """Parse a message with text: (job id, attempt, chunk). `cipher`: the job's; None = encryption is off.

    Raises ContentDamaged.
    """
    head, _, body = raw.partition(b" ")
    job_id, _, attempt = head.decode().rpartition(":")
    cipher = cipher or _PLAIN
    return job_id, int(attempt), _parse_chunk(job_id, cipher.unseal(text_field(attempt), body))
