"""Compress what is read seldom: audit records, records and events of settled jobs. zstd with a trained dictionary.

A compressed value is a zstd frame: it begins with the magic number of zstd, which no JSON does, and names its
dictionary. Dictionaries are the files in `dictionaries/`, made by `ops/bench/train_dictionary.py` of synthetic jobs,
so none holds anything of a deployment. They are kept for ever: what was written with an older one stays readable.

What is compressed is content-free and stands in Redis in plain, so the length of a frame tells nothing that the value
would not; content is never compressed, because there the length would tell of what an app's secrets and an end user's
words have in common. Pure.
"""

from __future__ import annotations

import threading
from functools import cache
from importlib.resources import files
from typing import Final

import zstandard

DICTIONARY: Final = 40_001
"""The id of the dictionary that new values are written with; the number of its file."""
LARGEST: Final = 256 * 1024
"""Larger values are not compressed, and no frame that says it holds more is opened: others may have written it."""
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_LEVEL: Final = 3  # higher ones cost five times as much and save a tenth
_contexts = threading.local()  # a context serves one thread at a time


class UnknownDictionary(ValueError):
    """A value was written with a dictionary of a newer release."""


def compress(raw: bytes) -> bytes:
    """Return the value as a frame; unchanged if it is too large."""
    if len(raw) > LARGEST:
        return raw
    compressor: zstandard.ZstdCompressor | None = getattr(_contexts, "compressor", None)
    if compressor is None:
        compressor = _contexts.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, dict_data=_prepared_dictionary(), write_checksum=False
        )
    return compressor.compress(raw)


def is_compressed(raw: bytes) -> bool:
    """Return True when the value is a frame."""
    return raw[:4] == _MAGIC


def expand(raw: bytes) -> bytes:
    """Return what `compress` was given; a value that is no frame as it is.

    Raises UnknownDictionary, ValueError for a damaged frame or one that holds more than `LARGEST` bytes.
    """
    if raw[:4] != _MAGIC:
        return raw
    try:
        frame = zstandard.get_frame_parameters(raw)
        if not 0 <= frame.content_size <= LARGEST:  # what says nothing of its size, Vigil did not write
            raise ValueError("a compressed value of an impossible size")
        return _decompressor(frame.dict_id).decompress(raw, allow_extra_data=False)
    except zstandard.ZstdError:
        raise ValueError("a damaged compressed value") from None


def _decompressor(number: int) -> zstandard.ZstdDecompressor:
    known: dict[int, zstandard.ZstdDecompressor] | None = getattr(_contexts, "decompressors", None)
    if known is None:
        known = _contexts.decompressors = {}
    found = known.get(number)
    if found is None:
        if number not in _numbers():
            raise UnknownDictionary(f"a value that is compressed with the dictionary {number} of a newer release")
        found = known[number] = zstandard.ZstdDecompressor(dict_data=_dictionary(number))
    return found


@cache
def _numbers() -> frozenset[int]:
    """Return the numbers of the dictionaries that this release has."""
    names = (one.name for one in files("worker.store").joinpath("dictionaries").iterdir())
    return frozenset(int(name.removesuffix(".dict")) for name in names if name.endswith(".dict"))


@cache
def _prepared_dictionary() -> zstandard.ZstdCompressionDict:
    """Return the dictionary of new values, prepared for `_LEVEL`.

    All threads share it, so it is prepared before any of them has it: preparing it again would free the tables that
    another thread compresses with, and end the process.
    """
    dictionary = zstandard.ZstdCompressionDict(_bytes_of(DICTIONARY), dict_type=zstandard.DICT_TYPE_FULLDICT)
    dictionary.precompute_compress(level=_LEVEL)
    return dictionary


@cache
def _dictionary(number: int) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(_bytes_of(number), dict_type=zstandard.DICT_TYPE_FULLDICT)


def _bytes_of(number: int) -> bytes:
    return files("worker.store").joinpath(f"dictionaries/{number}.dict").read_bytes()
