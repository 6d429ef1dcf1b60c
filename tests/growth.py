"""How fast the work of a function grows with the size of what it gets, in CPU: a busy machine changes little."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_TIMES = 4
_TRIES = 3
_NOISE_S = 0.002


def grows_too_fast(function: Callable[[T], object], make: Callable[[int], T], size: int) -> bool:
    """Return whether 4 times the size takes 10 times as long, or longer: linear work takes 4 times, quadratic 16."""
    for _ in range(_TRIES):
        small, large = _seconds(function, make(size)), _seconds(function, make(size * _TIMES))
        if large < 10 * (small + _NOISE_S):
            return False
    return True


def _seconds(function: Callable[[T], object], given: T) -> float:
    gc.disable()  # what it costs depends on all that this process holds
    began = time.thread_time()
    try:
        function(given)
    finally:
        took = time.thread_time() - began
        gc.enable()
    return took
