"""Collects what one attempt has shown so far: facts of the call, the serving model, output items, the pending error.

Used by the watch; it must not depend on time, checks or limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from worker.jobs.errors import Failure
from worker.jobs.pricing import tier_name
from worker.jobs.record import Block
from worker.jobs.states import DELIVERED, Outcome
from worker.safety.called_tools import ToolCallArguments
from worker.safety.codes import GENERIC
from worker.safety.output import Item, has_refusal, message_item, text_length
from worker.safety.served_model import judge_served
from worker.safety.signals import AttemptVerdict, ResponseKnown, Signal
from worker.safety.stream import CallDone, Created, ItemDone, Opened, PartDone, Rejected, Terminal


class PendingError:
    """The error that counts until the response ends: the first one, unless a later one is more specific."""

    __slots__ = ("failure", "weight")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.weight = 0

    def update(self, failure: Failure, weight: int) -> Failure:
        """Add an error and return the one that counts; a wait that only a later one names is kept.

        (wire.md section 11, rule 2)
        """
        if self.failure is None or weight > self.weight:
            self.failure, self.weight = failure, weight
        elif self.failure.block is not None and failure.block is not None:
            self.failure = replace(self.failure, block=_merge_blocks(self.failure.block, failure.block))
        elif self.failure.retryable and self.failure.retry_after is None and failure.retry_after is not None:
            self.failure = replace(self.failure, retry_after=failure.retry_after)
        return self.failure

    @property
    def unexplained(self) -> bool:
        """Return whether the provider reported a failure without a cause."""
        return self.failure is not None and self.weight <= GENERIC

    @property
    def block(self) -> Failure | None:
        """Return the pending failure if it is a block."""
        return self.failure if self.failure is not None and self.failure.outcome is Outcome.BLOCKED else None


def _merge_blocks(first: Block, later: Block) -> Block:
    """Return the first block with what only a later report of it says: whom it limits, and the kind of misalignment."""
    if later.scope == "end_user" and first.scope == "request":
        first = first.evolve(scope=later.scope, advice=later.advice)
    return first.evolve(misalignment=first.misalignment or later.misalignment)


class AttemptState:
    """The facts of the call; each new one gives a signal once."""

    __slots__ = (
        "_aliases", "_created", "_facts", "_items", "_model", "_parts", "_rate_limits", "_tool_arguments",
        "_wanted_tier", "header", "refused", "resumed", "tier",
    )  # fmt: skip

    def __init__(self, model: str, aliases: Mapping[str, str], wanted_tier: str | None, resumed: int = 0) -> None:
        self._model, self._aliases, self._wanted_tier = model, aliases, wanted_tier
        self._facts: dict[str, Any] = {}
        self._items: dict[tuple[int, str, str], dict[str, Any]] = {}
        self._parts: dict[tuple[int, str], dict[int, tuple[Literal["text", "refusal"], str]]] = {}
        self._tool_arguments = ToolCallArguments()
        self._rate_limits: dict[str, str] = {}
        self._created: str | None = None
        self.header: str | None = None
        self.tier: str | None = None
        self.refused = False
        self.resumed = resumed

    @property
    def http_status(self) -> int | None:
        """Return the HTTP status of the first answer."""
        return self._facts.get("http_status")

    @property
    def request_id(self) -> str | None:
        """Return the provider's id of the first call."""
        return self._facts.get("request_id")

    @property
    def response_id(self) -> str | None:
        """Return the provider's id of the response, once it is known."""
        return self._facts.get("response_id")

    def opened(self, event: Opened) -> list[Signal]:
        """Record the headers. After a resume the attempt keeps the ids of the first call."""
        signals: list[Signal] = []
        self.header = event.served_header or self.header
        if event.resumed:
            self.resumed += 1
            signals.append(ResponseKnown(resumed=self.resumed))
        known = self._call_facts(event, first=not event.resumed)
        if known and not event.resumed:
            known[-1] = replace(known[-1], rate_limits=event.rate_limits)
        return [*signals, *known]

    def created(self, event: Created) -> list[Signal]:
        """Record the response's id; the model of the first snapshot is kept."""
        self._created = self._created or event.model
        self.tier = event.service_tier or self.tier
        mode = "background" if event.is_snapshot and event.response_id is not None else None
        return [*self._update_facts(first=True, response_id=event.response_id, mode=mode)]

    def rejected(self, event: Rejected) -> list[Signal]:
        """Record that the call was answered with an HTTP error."""
        return [*self._call_facts(event, first=event.on == "create")]

    def terminal(self, event: Terminal) -> list[Signal]:
        """Record the last snapshot."""
        self.tier = event.service_tier or self.tier
        self.refused = self.refused or any(has_refusal(item) for item in (*event.output, *self._items.values()))
        return [*self._update_facts(first=True, response_id=event.response_id)]

    def add_completed(self, event: ItemDone | PartDone | CallDone) -> tuple[str, ...]:
        """Record a complete item, content part or call; return the flags of what had to be repaired in it."""
        index = event.index
        if isinstance(event, CallDone):
            self._tool_arguments.add(event)
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
        """Return the key of a part's item, by index and id; a part that comes again under another id is the same."""
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
        longest_silence: float | None = None,
    ) -> AttemptVerdict:
        """Return everything as the verdict. Only a delivered outcome has output (promises P2, P7)."""
        delivered = outcome in DELIVERED
        served = judge_served(self._model, self.header, self._created, event.model if event else None, self._aliases)
        wanted = tier_name(self._wanted_tier)
        derived = {
            "rerouted": served.rerouted,
            "model_conflict": served.conflict,
            "tier_changed": bool(self.tier and wanted) and tier_name(self.tier) != wanted,  # fast is priority
            "input_removed": event is not None and any(t.action == "removed" for t in event.input_transformations),
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
            longest_silence=longest_silence,
            input_transformations=event.input_transformations if event else (),
        )

    def _answer(self, event: Terminal | None) -> tuple[dict[str, Any], ...]:
        """Return the items of the terminal snapshot.

        If it is empty, or has no text though the stream had, return the streamed items; if those have none, the parts.
        """
        streamed = [item for _, item in sorted(self._items.items(), key=lambda row: row[0][0])]
        places = sorted(self._parts.items(), key=lambda row: row[0][0])
        messages = [message_item(parts[n] for n in sorted(parts)) for _, parts in places]
        if not text_length(streamed):
            streamed = [item for item in streamed if item.get("type") != "message" or not messages] + messages
        snapshot = event.output if event is not None else ()
        if not snapshot:
            return self._tool_arguments.fill(streamed)
        return self._tool_arguments.fill(self._merge_snapshot(snapshot, streamed))

    def _merge_snapshot(self, snapshot: tuple[Item, ...], streamed: list[Item]) -> tuple[Item, ...]:
        """Return the items of the snapshot, with the messages of the stream if only those have text."""
        if text_length(snapshot) or not text_length(streamed):
            return snapshot
        others = [item for item in snapshot if item.get("type") != "message"]
        return (*others, *(item for item in streamed if item.get("type") == "message"))

    def _call_facts(self, event: Opened | Rejected, *, first: bool) -> list[ResponseKnown]:
        self._rate_limits = event.rate_limits or self._rate_limits
        return self._update_facts(
            first=first,
            request_id=event.request_id,
            organization=event.organization,
            project=event.project,
            http_status=event.http_status,
            processing_ms=event.processing_ms,
        )

    def _update_facts(self, *, first: bool, **facts: str | int | None) -> list[ResponseKnown]:
        """Return a signal of the new facts; of a call that is not the first, only those that were unknown."""
        old = self._facts
        new = {k: v for k, v in facts.items() if v is not None and old.get(k) != v and (first or k not in old)}
        self._facts = old | new
        return [ResponseKnown(**new)] if new else []  # type: ignore[arg-type]  # the names above are its fields
