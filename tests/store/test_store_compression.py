"""Compressed values: the same bytes again, whatever release wrote them; nothing that a stranger planted is opened."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.resources import files

import pytest
import zstandard
from hypothesis import given, strategies as st

from worker.store import compression
from worker.store.jobs.trail_rows import first_row_is, folded, unfolded

DIGESTS = {40_001: "4861d1ad1fb178e1ed3cacd9555838ee82223fc5303422c49bf3d7c7d59f19e9"}
"""What was written with a released dictionary can be read with these very bytes alone."""
WRITTEN_BEFORE = bytes.fromhex(
    "28b52ffd22419c673501006032363031717565756564227d09fc6a6208062a78102635c9abd5fcc4620311353aa861d810"
)
"""A record as the first release with dictionaries wrote it."""
RECORD = b'{"app":"shop","at":"2026-07-01T12:00:00Z","attempt":null,"job_id":"job_01","seq":1,"type":"job.queued"}'


@given(st.binary(max_size=3000))
def test_what_was_compressed_comes_back(raw: bytes) -> None:
    small = compression.compress(raw)
    assert compression.is_compressed(small)
    assert compression.expand(small) == raw


def test_what_is_not_compressed_stays_as_it_is() -> None:
    assert compression.expand(RECORD) == RECORD
    large = b"x" * (compression.LARGEST + 1)
    assert compression.compress(large) == large


def test_threads_that_begin_at_once_do_not_end_the_process() -> None:
    work = """
import json, threading
from worker.store import compression
raw = json.dumps({"type": "job.queued"}).encode() * 20
def compress_and_expand():
    for _ in range(30):
        assert compression.expand(compression.compress(raw)) == raw
for _ in range(60):
    threads = [threading.Thread(target=compress_and_expand) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_released_dictionaries_are_never_changed_and_read_what_they_wrote() -> None:
    folder = files("worker.store").joinpath("dictionaries")
    found = {int(one.name.removesuffix(".dict")): one.read_bytes() for one in folder.iterdir()}
    assert {number: hashlib.sha256(raw).hexdigest() for number, raw in found.items()} == DIGESTS
    assert all(zstandard.ZstdCompressionDict(raw).dict_id() == number for number, raw in found.items())
    assert compression.DICTIONARY in found
    assert compression.expand(WRITTEN_BEFORE) == RECORD


def test_a_dictionary_of_a_newer_release_is_told_apart_from_damage() -> None:
    frame = compression.compress(RECORD * 3)
    place = frame.index((40_001).to_bytes(2, "little"))
    newer = frame[:place] + (40_002).to_bytes(2, "little") + frame[place + 2 :]
    with pytest.raises(compression.UnknownDictionary):
        compression.expand(newer)


@pytest.mark.parametrize("end", [3, 5, 9, -1])
def test_a_cut_frame_is_an_error_and_never_a_shorter_value(end: int) -> None:
    frame = compression.compress(RECORD)
    if end < 4 and end > 0:
        assert compression.expand(frame[:end]) == frame[:end], "no frame any more"
    else:
        with pytest.raises(ValueError, match="compressed"):
            compression.expand(frame[:end])


def test_more_than_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="compressed"):
        compression.expand(compression.compress(RECORD) + b"x")


def test_a_planted_frame_of_a_gigabyte_is_not_opened() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(compression.LARGEST * 8))
    assert len(bomb) < 1000
    with pytest.raises(ValueError, match="size"):
        compression.expand(bomb)
    writer = zstandard.ZstdCompressor().compressobj()  # one that does not say what it holds
    silent = writer.compress(bytes(compression.LARGEST * 8)) + writer.flush()
    with pytest.raises(ValueError, match="size"):
        compression.expand(silent)


def test_folded_rows_are_the_same_rows_again() -> None:
    rows = [b'{"seq":%d,"mac":"1.98fe7bf1.f53a001282743769a9f812610ceed9ad"}' % n for n in range(1, 9)]
    later = b'{"seq":9}'
    assert unfolded([folded(rows), later]) == [*rows, later]
    assert first_row_is(rows, 1)
    assert first_row_is(rows[3:], 4)
    assert not first_row_is([folded(rows), later], 1)
    assert not first_row_is([later], 2)
    assert not first_row_is([], 1)
    damaged = folded(rows)[:-5]
    assert unfolded([damaged, later]) == [damaged, later]
