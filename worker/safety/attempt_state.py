"""What one attempt has shown so far: the facts of the call, who serves, the items of the answer, the error held.

Bookkeeping for the watch. Must not know: time, checks, limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from worker.jobs.errors import Failure
from worker.jobs.states import DELIVERED, Outcome
from worker.safety.called_tools import ToolCallArguments
from worker.safety.codes import GENERIC
from worker.safety.output import Item, has_refusal, message_item, text_length
from worker.safety.served_model import judge_served
from worker.safety.signals import AttemptVerdict, ResponseKnown, Signal
from worker.safety.stream import CallDone, Created, ItemDone, Opened, PartDone, Rejected, Terminal


class PendingError:
    """The error that stands until the last word: the first one, unless a later one tells more."""

    __slots__ = ("failure", "weight")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.weight = 0

    def hold(self, failure: Failure, weight: int) -> Failure:
        """The failure that stands now; a wait that only the later one names is kept (wire.md section 11, rule 2)."""
        if self.failure is None or weight > self.weight:
            self.failure, self.weight = failure, weight
        elif self.failure.retryable and self.failure.retry_after is None and failure.retry_after is not None:
            self.failure = replace(self.failure, retry_after=failure.retry_after)
        return self.failure

    @property
    def unexplained(self) -> bool:
        """True when the provider told of a failure and named no cause."""
        return self.failure is not None and self.weight <= GENERIC

    @property
    def block(self) -> Failure | None:
        """The held failure if it is a block."""
        return self.failure if self.failure is not None and self.failure.outcome is Outcome.BLOCKED else None


class AttemptState:
    """Facts of the call in the order of their arrival; each is told once."""

    __slots__ = (
        "_aliases", "_calls", "_created", "_facts", "_items", "_model", "_parts", "_rate_limits", "_wanted_tier",
        "header", "refused", "resumed", "tier",
    )  # fmt: skip

    def __init__(self, model: str, aliases: Mapping[str, str], wanted_tier: str | None, resumed: int = 0) -> None:
        self._model, self._aliases, self._wanted_tier = model, aliases, wanted_tier
        self._facts: dict[str, Any] = {}
        self._items: dict[tuple[int, str, str], dict[str, Any]] = {}
        self._parts: dict[tuple[int, str], dict[int, tuple[Literal["text", "refusal"], str]]] = {}
        self._calls = ToolCallArguments()
        self._rate_limits: dict[str, str] = {}
        self._created: str | None = None
        self.header: str | None = None
        self.tier: str | None = None
        self.refused = False
        self.resumed = resumed

    @property
    def http_status(self) -> int | None:
        """The status of the first answer."""
        return self._facts.get("http_status")

    @property
    def request_id(self) -> str | None:
        """The provider's id of the first call."""
        return self._facts.get("request_id")

    @property
    def response_id(self) -> str | None:
        """The provider's id of the response, once it has one."""
        return self._facts.get("response_id")

    def opened(self, event: Opened) -> list[Signal]:
        """Headers came. After a resume the ids of the first call stay those of the attempt."""
        signals: list[Signal] = []
        self.header = event.served_header or self.header
        if event.resumed:
            self.resumed += 1
            signals.append(ResponseKnown(resumed=self.resumed))
        return signals + self._call(event, first=not event.resumed)

    def created(self, event: Created) -> list[Signal]:
        """The response has an id; the first snapshot's model is kept."""
        self._created = self._created or event.model
        self.tier = event.service_tier or self.tier
        kept = "background" if event.state and event.response_id is not None else None
        return self._learn(first=True, response_id=event.response_id, mode=kept)

    def rejected(self, event: Rejected) -> list[Signal]:
        """The call was answered with an HTTP error."""
        return self._call(event, first=event.on == "create")

    def terminal(self, event: Terminal) -> list[Signal]:
        """The last snapshot came."""
        self.tier = event.service_tier or self.tier
        self.refused = self.refused or any(has_refusal(item) for item in (*event.output, *self._items.values()))
        return self._learn(first=True, response_id=event.response_id)

    def whole(self, event: ItemDone | PartDone | CallDone) -> tuple[str, ...]:
        """An item, a content part or a call's arguments are complete; the flags of what had to be mended in it."""
        index = event.index
        if isinstance(event, CallDone):
            self._calls.add(event)
            return ()
        if isinstance(event, PartDone):
            if event.text:
                self.refused |= event.kind == "refusal"
                self._parts.setdefault(self._item_of(event), {})[event.part] = (event.kind, event.text)
            return ()
        name = event.item.get("id")  # some servers give all items the same index: they are told apart by more
        key = name if isinstance(name, str) and name else json.dumps(event.item, sort_keys=True)
        self._items[index, str(event.item.get("type")), key] = event.item
        if text_length([event.item]):
            for place in [at for at in self._parts if at[0] == index and (not name or at[1] in ("", name))]:
                del self._parts[place]  # the item has its parts
        return event.flags

    def _item_of(self, event: PartDone) -> tuple[int, str]:
        """The item that a part belongs to, by index and id; a part that is told again under another id is the same."""
        for (index, name), parts in self._parts.items():
            same = parts.get(event.part) == (event.kind, event.text)
            if index == event.index and (not name or not event.item or same):
                return index, name
        return event.index, event.item

    def verdict(
        self,
        outcome: Outcome,
        failure: Failure | None,
        event: Terminal | None,
        flags: set[str],
        *,
        sequence: int | None,
        deltas: int,
        output_seen: bool,
        resumable: bool,
    ) -> AttemptVerdict:
        """All of it as the verdict. Only a delivered outcome carries output (promises P2, P7)."""
        delivered = outcome in DELIVERED
        served = judge_served(self._model, self.header, self._created, event.model if event else None, self._aliases)
        derived = {
            "rerouted": served.rerouted,
            "model_conflict": served.conflict,
            "tier_changed": bool(self.tier) and self._wanted_tier not in (None, "auto", self.tier),
        }
        cut_short = event is not None and outcome is Outcome.INCOMPLETE
        return AttemptVerdict(
            outcome=outcome,
            failure=failure,
            block=failure.block if failure else None,
            refused=self.refused and delivered,
            incomplete_reason=(event.incomplete_reason or "unknown") if event and cut_short else None,
            served_model=served.served_model or (self._model if delivered else None),
            served_raw=served.raw,
            flags=tuple(sorted(flags | {name for name, holds in derived.items() if holds})),
            usage=event.usage if event else None,
            service_tier=self.tier,
            http_status=self.http_status,
            request_id=self.request_id,
            response_id=self.response_id,
            rate_limits=self._rate_limits,
            output=self._answer(event) if delivered else (),
            sequence=sequence,
            deltas_counted=deltas,
            first_output_seen=output_seen,
            resumable=resumable and self.response_id is not None,
        )

    def _answer(self, event: Terminal | None) -> tuple[dict[str, Any], ...]:
        """The terminal snapshot's items. Where it is empty, or silent though the stream was not, those that came one by
        one; where they are silent too, the parts.
        """
        streamed = [item for _, item in sorted(self._items.items(), key=lambda row: row[0][0])]
        places = sorted(self._parts.items(), key=lambda row: row[0][0])
        told = [message_item(parts[n] for n in sorted(parts)) for _, parts in places]
        if not text_length(streamed):
            streamed = [item for item in streamed if item.get("type") != "message" or not told] + told
        snapshot = event.output if event is not None else ()
        if not snapshot:
            return self._calls.filled(streamed)
        return self._calls.filled(self._chosen(snapshot, streamed))

    def _chosen(self, snapshot: tuple[Item, ...], streamed: list[Item]) -> tuple[Item, ...]:
        """The items of the snapshot; the messages of the stream where only those say anything."""
        if text_length(snapshot) or not text_length(streamed):
            return snapshot
        rest = [item for item in snapshot if item.get("type") != "message"]
        return (*rest, *(item for item in streamed if item.get("type") == "message"))

    def _call(self, event: Opened | Rejected, *, first: bool) -> list[Signal]:
        self._rate_limits = event.rate_limits or self._rate_limits
        return self._learn(
            first=first,
            request_id=event.request_id,
            organization=event.organization,
            project=event.project,
            http_status=event.http_status,
            processing_ms=event.processing_ms,
        )

    def _learn(self, *, first: bool, **facts: str | int | None) -> list[Signal]:
        """What is new; of a call that is not the first, only what nobody said before."""
        old = self._facts
        new = {k: v for k, v in facts.items() if v is not None and old.get(k) != v and (first or k not in old)}
        self._facts = old | new
        return [ResponseKnown(**new)] if new else []  # type: ignore[arg-type]  # the names above are its fields
