"""Pace the calls to the provider, and limit jobs at once: the rules of a claim, and what commits tell the meters.

A meter counts the calls to one model of one account; all workers share it. The claim script asks it before a job starts
and charges it (`jobs/limits.lua`), and the commits of a run feed it with what the provider answered (`pace.lua`). So
pacing costs no round trip of its own. ops/design/pacing.md says how.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.clock import from_ms
from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.accounts import AccountBindings
from worker.jobs.catalogue import Catalogue
from worker.jobs.model import Model
from worker.jobs.record import Job
from worker.jobs.states import Purpose
from worker.jobs.view_schema import WaitingForView, WaitReason
from worker.safety.provider_limits import ProviderLimits
from worker.store import keys
from worker.store.commands import Command, CommandArg

_NO_BINDINGS: Final = AccountBindings()
Mode = Literal["headers", "limits", "off"]
"""What paces calls: the provider's headers and the configured limits, these alone, or nothing."""


_REASONS: Final[dict[str, WaitReason]] = {
    "rate": "provider_rate",
    "family": "account_checks",
    "model": "model_concurrency",
    "end_user": "end_user_concurrency",
}


@dataclass(frozen=True, slots=True)
class Charge:
    """The tokens that a call was charged, by estimate."""

    input_tokens: int
    output_tokens: int
    meter: str = ""
    """The name of the meter that a claim has charged; "" if no claim did."""

    @property
    def tokens(self) -> int:
        """Return all of them."""
        return self.input_tokens + self.output_tokens


def read_charge(reply: bytes) -> Charge | None:
    """Return the charge in a reply of the claim, or None if the job's call was not counted."""
    if not reply:
        return None
    read, written, meter = reply.decode().split(" ", 2)
    return Charge(int(read), int(written), meter)


def read_limit(limit: str) -> tuple[WaitReason, str | None, str | None]:
    """Return (the reason, account, model or family) of a limit's name. Raises KeyError, ValueError for another text."""
    kind, rest = limit.split(":", 1)
    account, _, model = rest.partition(":")
    return (_REASONS[kind], None, None) if kind == "end_user" else (_REASONS[kind], account, model)


def read_wait(raw: bytes | None) -> WaitingForView | None:
    """Return the limit at which a job waits, by the field `waits` of its hash; None for none and for other text."""
    try:
        limit, since, until = (raw or b"").decode().split("\0")
        reason, account, model = read_limit(limit)
        ends = from_ms(int(until)) if until else None
        return {"reason": reason, "account": account, "model": model, "since": from_ms(int(since)), "until": ends}
    except (ValueError, KeyError, OverflowError, OSError):
        return None


def model_of_next_call(job: Job) -> str:
    """Return the model that the job's next attempt calls: the one that was tried last, not beside another."""
    tried = [a.model for a in job.attempts if a.purpose not in (Purpose.RACE, Purpose.DRAFT)]
    return tried[-1] if tried else job.requested_model


def next_call(job: Job) -> str:
    """Return what the claim reads of the job's next call: account, model and end user; "" if it makes none.

    The account is the last attempt's; what the rules bind the app or the model to comes before it. A job with an
    attempt under way upstream reads that on, so nothing may keep it.
    """
    if job.open_attempts:
        return ""
    account = job.attempts[-1].account if job.attempts else DEFAULT_ACCOUNT
    return "\0".join((account, model_of_next_call(job), job.safety_identifier or ""))


class PaceRules:
    """The limits by the settings and models.toml, as the claim script reads them."""

    def __init__(
        self,
        catalogue: Catalogue,
        mode: Mode = "headers",
        end_user_max: int = 0,
        widened_rpm: int = 0,
        bindings: AccountBindings = _NO_BINDINGS,
        accounts: Sequence[str] = (DEFAULT_ACCOUNT,),
    ) -> None:
        """`end_user_max`: jobs of one end user at once, 0 = any number. `widened_rpm`: calls a minute to a family of
        models while the provider checks most of its requests; 0 = that changes nothing. `bindings`: which account
        serves whom; `accounts`: their names, in the order in which a claim gets their circuits.
        """
        self._catalogue, self.mode, self._bindings, self._accounts = catalogue, mode, bindings, accounts
        self._end_user_max, self._widened_rpm = end_user_max, widened_rpm
        self._widened: frozenset[tuple[str, str]] = frozenset()
        self._text = ""
        self._made_of: tuple[Any, frozenset[tuple[str, str]]] = (None, self._widened)

    def set_widened(self, families: Collection[tuple[str, str]]) -> None:
        """Slow the calls to these families, each of an account, and to no others."""
        self._widened = frozenset(families) if self._widened_rpm else frozenset()

    def meter(self, model: str, account: str = DEFAULT_ACCOUNT) -> Meter:
        """Return the meter of a model, whichever of its names this is."""
        found = self._catalogue.find(model)
        return Meter(model if found is None else found.id, account)

    @property
    def text(self) -> str:
        """Return the rules as JSON."""
        made_of: Any = (self._catalogue.models, self._widened)
        if made_of[0] is not self._made_of[0] or made_of[1] != self._made_of[1]:
            rules = {"pace": self.mode != "off", "headers": self.mode == "headers", "end_user": self._end_user_max}
            slow = {f"{account}:{family}": self._widened_rpm for account, family in sorted(self._widened)}
            who = {"apps": dict(self._bindings.apps), "accounts": list(self._accounts), "slow": slow}
            self._text = json.dumps(rules | who | {"models": self._rows()}, separators=(",", ":"))
            self._made_of = made_of
        return self._text

    def _rows(self) -> dict[str, dict[str, Any]]:
        """Return the rule of each model that has one, by all of its names."""
        rows: dict[str, dict[str, Any]] = {
            name: {"account": account, "model": name} for name, account in self._bindings.models.items()
        }
        for model in self._catalogue.models.values():
            row = self._rule(model)
            names = (model.id, *model.aliases) if row else model.aliases
            rows |= dict.fromkeys(names, row | {"model": model.id})
        return rows

    def _rule(self, model: Model) -> dict[str, Any]:
        account = self._bindings.account_of("", model.id, self._catalogue)
        row: dict[str, Any] = {"max": model.max_concurrent, "account": None if account == DEFAULT_ACCOUNT else account}
        if self.mode != "off":
            row |= {"rpm": model.rpm, "tpm": model.tpm}
        if any(model.family == family for _, family in self._widened):
            row["family"] = model.family
        return {name: value for name, value in row.items() if value is not None}


@dataclass(frozen=True, slots=True)
class MeterChange:
    """What a commit tells a meter; pace.lua says what it makes of it."""

    meter: str
    what: tuple[CommandArg, ...]

    def command(self) -> Command:
        """Return the command of the commit."""
        return ("METER", keys.meter(self.meter), keys.LIMITS, f"rate:{self.meter}", *self.what)


class Meter:
    """The changes by which a commit tells the meter of one model of one account what happened to a call."""

    def __init__(self, model: str, account: str = DEFAULT_ACCOUNT) -> None:
        self.name = f"{account}:{model}"

    @classmethod
    def named(cls, name: str) -> Meter:
        """Return the meter of this name."""
        account, _, model = name.partition(":")
        return cls(model, account)

    def charged(self, charge: Charge) -> MeterChange:
        """Return what counts a call which no claim has counted."""
        return self._tell("charged", charge.tokens)

    def returned(self, charge: Charge) -> MeterChange:
        """Return what gives back a call that a claim has counted and that goes to another meter."""
        return self._tell("returned", charge.tokens)

    def estimated(self, more: int) -> MeterChange:
        """Return what corrects what a claim has charged, by a better estimate."""
        return self._tell("estimated", more)

    def answered(self, charge: Charge, limits: ProviderLimits) -> MeterChange:
        """Return what tells what the provider said of its limits when it answered the call."""
        return self._tell("answered", charge.tokens, *_limit_arguments(limits))

    def refused(self, charge: Charge | None, limits: ProviderLimits, retry_after: float | None) -> MeterChange:
        """Return what closes the meter after a 429, for as long as the provider asks.

        `charge`: None if the call had been answered, and its stream told of the limit.
        """
        wait = "" if retry_after is None else round(min(retry_after, 1e6) * 1000)
        return self._tell("refused", "" if charge is None else charge.tokens, wait, *_limit_arguments(limits))

    def unanswered(self, charge: Charge) -> MeterChange:
        """Return what tells that nobody has answered the call."""
        return self._tell("unanswered", charge.tokens)

    def used(self, charge: Charge, total: int, output: int) -> MeterChange:
        """Return what corrects the charge when the tokens of the call are known."""
        return self._tell("used", total - charge.tokens, output)

    def _tell(self, *what: CommandArg) -> MeterChange:
        return MeterChange(self.name, what)


def _limit_arguments(limits: ProviderLimits) -> list[CommandArg]:
    out: list[CommandArg] = []
    for one in (limits.requests, limits.tokens):
        reset = "" if one is None or one.reset_seconds is None else round(one.reset_seconds * 1000)
        out += ["", "", ""] if one is None else [one.limit, one.remaining, reset]
    return out
