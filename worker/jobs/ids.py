"""Makes and parses the ids of jobs, messages and keys.

Pure: the time and the random bytes are arguments. Ids sort by the millisecond they were made in, so a cursor
over ids is a cursor over time.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: no i, l, o, u
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_TIME_DIGITS: Final = 10  # 50 bits of milliseconds: good until the year 37658
_RANDOM_DIGITS: Final = 16  # 80 random bits
RANDOM_BYTES: Final = 10

_PARTITION_DIGITS: Final = 3
_TAIL: Final = re.compile(rf"[{_ALPHABET}]{{{_TIME_DIGITS + _RANDOM_DIGITS}}}([{_ALPHABET}]{{{_PARTITION_DIGITS}}})?")


@lru_cache(maxsize=16)
def _time_digits(now_ms: int) -> str:
    """Return the digits of the time; cached because several ids share a millisecond under load."""
    return "".join([_PAIRS[now_ms >> shift & 1023] for shift in range(5 * _TIME_DIGITS - 10, -1, -10)])


def _random_digits(of: int, pairs: list[str] = _PAIRS) -> str:
    """Return the digits of 80 bits: two at a time and without a loop, for every request has several ids."""
    return (
        f"{pairs[of >> 70]}{pairs[of >> 60 & 1023]}{pairs[of >> 50 & 1023]}{pairs[of >> 40 & 1023]}"
        f"{pairs[of >> 30 & 1023]}{pairs[of >> 20 & 1023]}{pairs[of >> 10 & 1023]}{pairs[of & 1023]}"
    )


def new_tail(now_ms: int, random_bytes: bytes) -> str:
    """Return 26 characters: the millisecond, then the 80 bits of `random_bytes` (10 bytes)."""
    if len(random_bytes) != RANDOM_BYTES:
        msg = f"random_bytes must be {RANDOM_BYTES} bytes"
        raise ValueError(msg)
    return _time_digits(now_ms) + _random_digits(int.from_bytes(random_bytes, "big"))


def new_id(prefix: str, now_ms: int, random_bytes: bytes) -> str:
    """Return `job_…`, `msg_…` or `key_…`: the prefix for the kind of object, then a tail of `new_tail`."""
    return f"{prefix}_{new_tail(now_ms, random_bytes)}"


def partition_digits(number: int) -> str:
    """Return the three digits of a partition, from the lowest 15 bits of the number."""
    return "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * _PARTITION_DIGITS - 5, -1, -5)])


def partition_code_of(job_id: str) -> str:
    """Return the digits of its partition that a job's id ends with; "" of an id without."""
    return job_id[len("job_") + _TIME_DIGITS + _RANDOM_DIGITS :]


def is_job_id(text: str) -> bool:
    """Return whether the text could be the id of a job; anything else needs no look into Redis."""
    return text.startswith("job_") and _TAIL.fullmatch(text, 4) is not None


def time_ms(named: str) -> int:
    """Return the millisecond in which an id was made."""
    value = 0
    for digit in named.partition("_")[2][:_TIME_DIGITS]:
        value = value * 32 + _ALPHABET.index(digit)
    return value


def response_id_of(job_id: str) -> str:
    """Return the job's id in the OpenAI-compatible API: the same tail after `resp_`."""
    return "resp_" + job_id.removeprefix("job_")


def completion_id_of(job_id: str) -> str:
    """Return the job's id as a chat completion: the same tail after `chatcmpl-`."""
    return "chatcmpl-" + job_id.removeprefix("job_")


def job_id_of(named: str) -> str:
    """Return the job id that belongs to a `job_…`, `resp_…` or `chatcmpl-…` id."""
    for prefix in ("resp_", "chatcmpl-"):
        if named.startswith(prefix):
            return "job_" + named.removeprefix(prefix)
    return named
