"""Remember which apps' records are refused: the claim script reads their limits, and can't check a MAC itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.record_mac import RecordMacs
from worker.store.values import report_unreadable

_MAX_APPS: Final = 10_000


class AppRecords:
    """The records of apps that claims have read. A changed one counts for one claim of each worker, and no longer."""

    def __init__(self, macs: RecordMacs) -> None:
        self._macs = macs
        self._checked: OrderedDict[str, bytes] = OrderedDict()
        self.refused: dict[str, None] = {}

    def check(self, records: Mapping[str, bytes]) -> None:
        """Check the records that were not checked before; `refused` are then those that Vigil did not write."""
        for app, raw in records.items():
            if not self._macs.enabled or self._checked.get(app) == raw:
                continue
            self._checked[app] = raw
            self._checked.move_to_end(app)
            self.refused.pop(app, None)
            try:
                self._macs.detach(keys.app(app), keys.app(app), raw)
            except RecordUnreadable as error:
                report_unreadable(error)
                self.refused[app] = None
        while len(self._checked) > _MAX_APPS:
            self.refused.pop(self._checked.popitem(last=False)[0], None)
