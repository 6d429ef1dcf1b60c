"""Reports each change of an account's state, and of the state of a family of models, once in the log.

How a state is found is `store/provider/account_state.py`'s and `safety`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import Catalogue
from worker.store.provider.account_state import read_account_state, record_changes
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.loop import run_every
from worker.telemetry.events import emit

_INTERVAL_S: Final = 30.0
_ACCOUNT: Final = "account"


def _tell_nobody(_widened: Collection[tuple[str, str]]) -> None:
    pass


class AccountMonitor:
    """Checks twice a minute, until cancelled; of several workers the first that sees a change reports it."""

    def __init__(
        self,
        redis: ArqRedis,
        catalogue: Catalogue,
        notices: SafetyNotices,
        clock: Clock,
        set_widened: Callable[[Collection[tuple[str, str]]], None] = _tell_nobody,
        accounts: Sequence[str] = (DEFAULT_ACCOUNT,),
    ) -> None:
        """`accounts`: their names. `set_widened` is told the (account, family) of which most requests are checked."""
        self._redis, self._catalogue, self._notices, self._clock = redis, catalogue, notices, clock
        self._set_widened, self._accounts = set_widened, accounts

    async def run(self) -> None:
        """Check through every loss of Redis."""
        await run_every(_INTERVAL_S, "the account's state", self.report_changes)

    async def report_changes(self) -> None:
        """Report every change since a worker last checked."""
        widened: list[tuple[str, str]] = []
        for account in self._accounts:
            now = await read_account_state(self._redis, self._catalogue, self._notices, self._clock.now(), account)
            states: dict[str, str] = {name: one.state for name, (_, one) in now.families.items()}
            widened += [(account, name) for name, state in states.items() if state == "widened"]
            changed = await record_changes(self._redis, {**states, _ACCOUNT: now.verdict.state}, account)
            for name, state in changed.items():
                because = ",".join(now.verdict.because) or "over"
                emit("account.state", account=account, model=name, status=state, code=because)
        self._set_widened(widened)
