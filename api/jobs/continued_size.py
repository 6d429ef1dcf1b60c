"""Adds up what a request continues, and refuses it as soon as that is too much.

A short request may name a long item very often, or items of many long answers: nothing is built, and no more is read,
once it is over a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NoReturn

from api.schema.views import dumps
from api.web.problems import Problem, fault
from worker.jobs.input_items import MAX_ITEMS, MAX_VALUES, KeptItem, count_values

_MAX_READ: Final = 4
"""How many times as long as all that is continued the answers may be that are read to find it."""


class ContinuedSize:
    """The items, bytes and JSON values that a request continues."""

    def __init__(self, field: str, own: int, most: int) -> None:
        """`field`: the field of `params` that an error names; `own`: the request's own items; `most`: bytes."""
        self._field, self._items, self._most = field, own, most
        self._values = self._read = self.bytes = 0

    def add(self, items: Sequence[KeptItem], places: int = 1) -> None:
        """Add items, which the request continues at so many places. Raises a Problem (413) if it is too much."""
        if not items or not places:
            return
        bodies = [one.item for one in items]
        self._items += len(items) * places
        self._values += count_values(bodies, MAX_VALUES) * places
        if self._values > MAX_VALUES:
            self._refuse(
                f"The earlier items have more than {MAX_VALUES} JSON values, with those inside of others: more can't "
                "be continued. Begin anew, and send long data as text."
            )
        self.bytes += len(dumps(bodies)) * places
        if self._items > MAX_ITEMS or self.bytes > self._most:
            self._refuse(
                f"The earlier items are too many or too long: with the request's own they are at least {self._items} "
                f"items, and they have at least {self.bytes} bytes; at most {MAX_ITEMS} items and {self._most} bytes "
                "can be continued. Begin anew, and send in `input` what is still needed."
            )

    def add_stored(self, size: int) -> None:
        """Add a stored answer that is about to be read for its items. Raises a Problem (413) if it is too much."""
        self._read += size
        if self._read > _MAX_READ * self._most:
            self._refuse(
                f"The responses whose items the input refers to have more than {_MAX_READ * self._most} bytes: send "
                "the items themselves."
            )

    def _refuse(self, detail: str) -> NoReturn:
        raise Problem(413, "input_too_large", detail, [fault(self._field, detail, "input_too_large")])
