"""The text of an attempt stays complete in memory whatever is lost of its chunks; the stored chunks fit together."""

from __future__ import annotations

import asyncio

import pytest
from builders import STARTED, began, new_job
from hypothesis import given, strategies as st
from waiting import LIMIT

from worker.store import channels
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.tasks.execution.output_buffer import OutputBuffer, OutputFlusher

STEPS = st.lists(st.one_of(st.text(max_size=5), st.sampled_from([True, False, None])), max_size=60)
"""A delta; or a flush that succeeds, fails and is put back, or fails past the bound."""


@given(STEPS)
def test_whatever_becomes_of_the_pieces_the_text_is_whole(steps: list[str | bool | None]) -> None:
    text, kept, written = OutputBuffer("job_1", 1, "t", set()), list[OutputChunk](), ""
    for number, step in enumerate(steps):
        if isinstance(step, str):
            text.add(number, step)
            written += step
        elif not text.safe:
            outgoing: PendingChunk = text.take()
            if step:
                kept.append(outgoing.chunk)
            elif step is False:
                text.put_back(outgoing)
        assert (str(text), text.length) == (written, len(written))
    for piece in kept:
        assert written[piece.offset : piece.offset + len(piece.text)] == piece.text


@pytest.mark.parametrize("stored", [True, False])
def test_long_streams_cost_a_few_strings_and_not_one_for_each_delta(stored):
    text = OutputBuffer("job_1", 1, "t", set())
    for flush in range(1000):
        for number in range(2):
            text.add(flush * 2 + number, "word ")
        pending = text.take()
        if not stored:
            text.put_back(pending)
    assert len(text.parts) <= 10  # ld 1000
    assert str(text) == "word " * 2000


def test_what_an_earlier_holder_kept_is_taken_up_to_the_first_gap() -> None:
    text = OutputBuffer("job_1", 1, "t", set())
    text.restore([OutputChunk(3, 0, "abc"), OutputChunk(5, 3, "de"), OutputChunk(9, 7, "x")])
    assert (str(text), text.sequence, text.safe) == ("abcde", 5, True)


async def test_who_watches_one_job_costs_the_others_nothing(redis, jobs):
    flusher, texts = OutputFlusher(OutputChunks(redis), lambda _: None), list[OutputBuffer]()
    for _ in range(2):
        await jobs.submit(new_job())
        _, (held,) = await jobs.claim("w1", 1, 15)
        await jobs.change(held.job.id, lambda _: [(STARTED, None), (began(), 1)], token=held.token)
        texts.append(OutputBuffer(held.job.id, 1, held.token, flusher.dirty))
    watched, alone = texts
    stored = dict.fromkeys(texts, 0)

    async def write() -> None:
        while stored[watched] < 8:
            for number, text in enumerate(texts):
                text.add(number, "word ")
                stored[text] = len(await OutputChunks(redis).read(text.job_id, 1))
            await asyncio.sleep(0.005)

    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub, asyncio.timeout(LIMIT):
        await pubsub.subscribe(channels.output_chunks_of(watched.job_id))
        await pubsub.get_message(timeout=LIMIT)
        running = asyncio.create_task(flusher.run())
        await write()
        running.cancel()
    assert 1 <= stored[alone] <= 2  # in the first pass, and from then on in every tenth
    await flusher.flush()
    assert "".join(c.text for c in await OutputChunks(redis).read(alone.job_id, 1)) == str(alone)
    assert all(text.safe for text in texts)
