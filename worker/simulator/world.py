"""Holds the state that all handlers share: responses, counts for `times`, the ledger, the mix, denied models.

It must not depend on routes or write answers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from aiohttp import web

from . import wire
from .directive import find
from .ledger import Call, Ledger
from .live_response import LiveResponse
from .mix import Mix
from .pace import Pace
from .plan import TOO_OLD_AFTER, Plan, resolve
from .rates import Rates
from .request_body import ParsedRequest
from .safety import NoticeSubject, SafetyPages, event
from .script import responses_script
from .transport import Fault
from .webhooks import WebhookError, Webhooks
from .wire import Ids, Step
from .wire_shapes import reshape

CATALOG = (
    "gpt-5.4-mini",
    "gpt-5.5",
    "gpt-5.6",
    "gpt-5.6-luna",
    "gpt-5.6-sol",
    "gpt-5.6-terra",
    "gpt-6-astra",
    "gpt-6-luna",
    "gpt-6-sol",
    "gpt-6-terra",
    "gpt-6.1-luna",
    "gpt-6.1-sol",
    "gpt-6.1-terra",
    "gpt-6.2-astra",
    "gpt-6.2-sol",
)
SHUTDOWN_DATES = {"gpt-5.4-mini": "2027-04-01"}
"""Days on which models shut down, as their pages say; those of the others are null."""
DENIED = frozenset({"gpt-5.6-cyber"})  # known, not granted: what a probe should find
_MAX_RESPONSES = 5_000  # finished responses; the oldest go first
_RESUME_FLOOR = 10.0  # seconds of real time a stream stays resumable however fast the clock

log = logging.getLogger(__name__)


class World:
    """Everything that outlives a request."""

    def __init__(
        self,
        *,
        pace: Pace,
        mix: Mix | None,
        webhooks: Webhooks,
        denied: frozenset[str],
        rates: Rates,
        allowed_hosts: frozenset[str] = frozenset(),
    ) -> None:
        """Start empty."""
        self.rates = rates
        self.pace, self.mix, self.webhooks, self.denied = pace, mix, webhooks, denied
        self.allowed_hosts = allowed_hosts
        self.ledger = Ledger()
        self.lives: dict[str, LiveResponse] = {}
        self.pages = SafetyPages()
        self._hits: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what happens to a request

    def plan(self, ask: ParsedRequest, call: Call) -> Plan:
        """Return what happens to a create and count it; DirectiveError for a directive that can't be obeyed."""
        directive = find(ask.text)
        if directive is not None:
            plan = resolve(directive, ask.model)
        elif self.mix is not None:
            plan = replace(resolve(self.mix.draw(), ask.model), drawn=True)
        else:
            plan = Plan()
        if (plan.stream_only and not ask.stream) or not self._happens(plan, ask):
            plan = plan.as_normal()
        call.scenario = plan.scenario
        self.ledger.chosen(ask.model, plan.scenario)
        return plan

    def fault(self, live: LiveResponse, *, first: bool) -> Fault | None:
        """Return how this connection to a response breaks; further connections count against `times` too."""
        return self.connection_fault(live.plan, live.ask, first=first)

    def connection_fault(self, plan: Plan, ask: ParsedRequest, *, first: bool) -> Fault | None:
        """Return how this connection breaks before a response exists."""
        if plan.how is None or (not first and (plan.drawn or not self._happens(plan, ask))):
            return None
        return Fault(plan.how, plan.after)

    def _happens(self, plan: Plan, ask: ParsedRequest) -> bool:
        if not plan.times or plan.drawn:
            return True
        key = f"{plan.scenario}\n{ask.identity}"
        self._hits[key] += 1
        return self._hits[key] <= plan.times

    # -- responses

    def create(self, ask: ParsedRequest, plan: Plan, project: str) -> tuple[LiveResponse, Iterator[Step]]:
        """Register a new response; return it with the steps that it will take."""
        live = self.unkept(ask, plan)
        ids = live.ids
        self.lives[ids.response] = live
        while len(self.lives) > _MAX_RESPONSES:
            oldest = next((key for key, old in self.lives.items() if old.done), None)
            if oldest is None:
                break
            del self.lives[oldest]
        return live, reshape(responses_script(ask, plan, ids, project), plan.odd)

    def unkept(self, ask: ParsedRequest, plan: Plan) -> LiveResponse:
        """Return a new response under fresh names that no GET will find."""
        tail = secrets.token_hex(24)
        ids = Ids(f"resp_{tail}", f"msg_{tail[::-1]}", f"call_{secrets.token_hex(12)}", int(time.time()))
        return LiveResponse(ask, plan, ids, self.ledger, asyncio.get_running_loop().time())

    def run(self, live: LiveResponse, steps: Iterator[Step]) -> None:
        """Let a background response happen by itself; its first event has happened when this returns."""
        live.absorb(next(steps))
        live.task = self.spawn(self._generate(live, steps))

    async def _generate(self, live: LiveResponse, steps: Iterator[Step]) -> None:
        async for step in self.pace.steps(steps):
            live.absorb(step)
        live.finish()
        await self.tell(live)

    async def tell(self, live: LiveResponse) -> None:
        """Send the terminal webhook of a background response, when there is somebody to send it to."""
        if self.webhooks.url and live.ask.background:
            await self.webhooks.emit(f"response.{live.status}", {"id": live.ids.response})

    def notify(self, ask: ParsedRequest, plan: Plan, call: Call, project: str) -> None:
        """Let the safety team tell of this request after its hold, when the plan says so and somebody listens."""
        if plan.notify and self.webhooks.url:
            _ = self.spawn(self._notify(ask, plan, call, project))

    async def _notify(self, ask: ParsedRequest, plan: Plan, call: Call, project: str) -> None:
        await self.pace.sleep(plan.hold)
        who = call.safety_identifier
        subject = NoticeSubject(
            ask.model, project, call.request_id, call.response_id, who, (plan.labels("use_case") or ["other"])[0]
        )
        webhook = event(plan.notify, subject, self.pages)
        if webhook is not None:
            await self.webhooks.emit(*webhook)

    def resumable(self, live: LiveResponse) -> bool:
        """Whether the stream is young enough to be resumed."""
        age = asyncio.get_running_loop().time() - live.born
        return age <= max(TOO_OLD_AFTER / self.pace.speed, _RESUME_FLOOR)

    def looks(self, live: LiveResponse) -> str:
        """Return what a GET of the response meets now."""
        plan, age = live.plan, asyncio.get_running_loop().time() - live.born
        return plan.looks if not plan.look_hold or age < plan.look_hold / self.pace.speed else "ok"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the requests; it ends with the simulator at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, WebhookError):
            log.error("simulator task failed: %s", type(error).__name__, exc_info=error)

    async def close(self) -> None:
        """Stop all that runs beside the requests."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.webhooks.close()

    def reset(self) -> None:
        """Forget counts and the tallies behind `times`; responses stay."""
        self.ledger.reset()
        self._hits.clear()

    # -- headers

    def headers(
        self, request: web.Request, call: Call, plan: Plan | None = None, *, seconds: float = 0.0
    ) -> dict[str, str]:
        """Return the provider's headers for an answer; `seconds` is the simulated time before it."""
        plan = plan or Plan()
        out = wire.headers(
            request_id=call.request_id,
            organization=plan.org or request.headers.get("OpenAI-Organization") or "org-sim",
            project=project_of(request),
            processing_ms=212 + round(seconds * 1000),
        )
        out |= self.rates.headers(rated_of(request))
        if plan.route == "header" and plan.served:
            out["openai-model"] = plan.served
        return out


WORLD: web.AppKey[World] = web.AppKey("world", World)
CALL: web.RequestKey[Call] = web.RequestKey("call", Call)


def project_of(request: web.Request) -> str:
    """Return the project that a request counts for."""
    return request.headers.get("OpenAI-Project") or "proj_sim"


def rated_of(request: web.Request) -> tuple[str, str, str]:
    """Return for whom a request counts against the rates: key, project, model."""
    return request.headers.get("Authorization", ""), project_of(request), call_of(request).model or ""


def call_of(request: web.Request) -> Call:
    """Return the ledger's entry of a request."""
    return request[CALL]
