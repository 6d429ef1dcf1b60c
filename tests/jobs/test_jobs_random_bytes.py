"""Random bytes are handed out once: by no two calls, no two threads, and no two processes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from worker.clock import Clock


def test_calls_and_threads_never_share_bytes():
    def draw(_: int) -> list[bytes]:
        return [Clock().random_bytes(10) for _ in range(2_000)]

    with ThreadPoolExecutor(4) as threads:
        drawn = [piece for pieces in threads.map(draw, range(8)) for piece in pieces]
    assert len(set(drawn)) == len(drawn) == 16_000
    assert {len(piece) for piece in drawn} == {10}


def test_sizes_beyond_what_is_read_ahead():
    assert [len(Clock().random_bytes(size)) for size in (0, 1, 4_095, 4_096, 4_097, 100_000)] == [
        0, 1, 4_095, 4_096, 4_097, 100_000,
    ]  # fmt: skip


def test_a_forked_process_hands_out_other_bytes():
    Clock().random_bytes(1)  # so that some are read ahead
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, Clock().random_bytes(64))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 64) != Clock().random_bytes(64)
    os.close(read)
    os.close(write)
