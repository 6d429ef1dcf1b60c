"""What a newer release wrote into each kind of value: fields are read around and kept, a newer schema is left alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import pytest
from arq.connections import ArqRedis
from builders import VAULT, FakeClock, new_job

from worker.jobs.conversation import Conversation, conversation_of
from worker.jobs.errors import ContentDamaged, RecordUnreadable, Refused
from worker.jobs.input_items import KeptItem
from worker.safety.access import ModelAccess
from worker.safety.appeals import AppealStep
from worker.safety.endpoint import EndpointFit
from worker.safety.notices import SafetyNotice
from worker.store import keys
from worker.store.admission.model_access import ModelAccessStore, known_endpoint
from worker.store.admission.pauses import Pauses, scope_of
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.console_access import ConsoleAccess
from worker.store.conversations.documents import ConversationDocuments, StoredDocument, conversation_name
from worker.store.end_users.appeals import Appeals, appeal_name
from worker.store.end_users.quarantine import Quarantine
from worker.store.end_users.quarantine_rows import automatic_command, load_row, row_name
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.jobs.repository import Jobs
from worker.store.jobs.scripts import Scripts
from worker.store.key_text import digest_of
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.webhooks.endpoints import Endpoints, endpoint_name
from worker.store.webhooks.outbox import Outbox

ANN, BOB = "a" * 64, "b" * 64
FIELD, NEW = "of_a_newer_release", {"x": [1, None]}
ACTOR = Actor("operator")
_PLAIN, _TAGGED, _SEALED = "JSON", "with a MAC", "sealed"

Act = Callable[[], Awaitable[Any]]


@dataclass
class Value:
    """One value in Redis: how it is stored and under which name, what reads it and what writes it back.

    `another`: reads another value of its kind. `write`: None where each writer replaces it as a whole.
    """

    key: str
    field: str
    form: str
    name: str
    read: Act
    another: Act
    write: Act | None = None
    inner: str = ""  # the name of a list of values inside it, which keep their fields too


class Store:
    """Makes one value of each kind, and another one beside it, as Vigil does."""

    def __init__(self, redis: ArqRedis, clock: FakeClock) -> None:
        self.redis, self.clock, self.jobs = redis, clock, Jobs(redis, clock)
        self.apps, self.endpoints = Apps(redis, clock), Endpoints(redis, clock)
        self.quarantine, self.appeals = Quarantine(redis, clock), Appeals(redis, clock)

    async def api_key(self) -> Value:
        made, text, _ = await self.apps.create_key("shop", ("read",), person="Ann")
        other = (await self.apps.create_key("shop", ("read",)))[0]
        key = keys.api_key(digest_of(text))
        read, another = lambda: self.apps.find(text), lambda: self.apps.find_by_id(other.id)
        return Value(key, "", _TAGGED, key, read, another, lambda: self.apps.revoke(made.id))

    async def app(self) -> Value:
        for name in ("shop", "bank"):
            await self.apps.create_key(name, ("read",))
        read, another = lambda: self.apps.app("shop"), lambda: self.apps.app("bank")
        write = lambda: self.apps.set_limits("shop", weight=3.0)  # noqa: E731
        return Value(keys.app("shop"), "", _TAGGED, keys.app("shop"), read, another, write)

    async def endpoint(self) -> Value:
        one, two = [await self._endpoint(event) for event in ("job.completed", "job.failed")]

        async def write() -> None:
            await self.endpoints.change("shop", one, lambda found: replace(found, description="changed"))

        read, another = lambda: self.endpoints.find("shop", one), lambda: self.endpoints.find("shop", two)
        name = endpoint_name("shop", one)
        return Value(keys.endpoints("shop"), one, _SEALED, name, read, another, write, "secrets")

    async def _endpoint(self, event: str) -> str:
        given = {"url": "https://a.example/", "events": (event,), "payload": "thin", "description": ""}
        return (await self.endpoints.create("shop", **given, secret="whsec_x")).id

    async def pause(self) -> Value:
        pauses = Pauses(self.redis, self.clock)
        for name in ("shop", "bank"):
            await pauses.pause("app", name, by="ops", note=f"note on {name}")

        async def noted(app: str) -> str:
            (found,) = [one for one in await pauses.list() if one.name == app]  # it pauses, whoever can read it
            return found.note

        scope = scope_of("app", "shop")
        return Value(keys.pause(scope), "", _TAGGED, scope, lambda: noted("shop"), lambda: noted("bank"))

    async def quarantine_row(self) -> Value:
        end = self.clock.now() + timedelta(days=1)
        for person in (ANN, BOB):
            await self.quarantine.add("shop", person, by="ops", reason="why", until=end)

        async def reason(person: str) -> list[str]:
            return [one.reason for one in await self.quarantine.of_app("shop") if one.safety_identifier == person]

        async def renew() -> None:
            self.clock.step(1)
            await self.quarantine.add_by_provider("shop", ANN, self.clock.now(), "provider", 30)

        form = (keys.QUARANTINE, ANN, _TAGGED, row_name(ANN))
        return Value(*form, lambda: reason(ANN), lambda: reason(BOB), renew)

    async def message(self) -> Value:
        names = [(await self.jobs.submit(new_job(webhook_events=("job.queued",))))[0].job.id for _ in range(2)]
        outbox = Outbox(self.redis, self.clock)
        (one,) = await self.redis.lrange(keys.messages(names[0]), 0, -1)
        key = keys.message(one.decode())
        await self.redis.set(key, json.dumps({**json.loads(await self.redis.get(key)), "target": "wu_x"}))

        async def states(job_id: str) -> list[str]:
            return [message.state for message, _ in await outbox.of_job(job_id)]

        write = lambda: outbox.redeliver(names[0], one.decode())  # noqa: E731
        return Value(key, "", _PLAIN, "", lambda: states(names[0]), lambda: states(names[1]), write)

    async def notice(self) -> Value:
        notices, now = SafetyNotices(self.redis, 1000), self.clock.now()
        for name in ("evt_1", "evt_2"):
            made = SafetyNotice(id=name, type="safety.warning_issued", at=now, received_at=now)
            await notices.store_webhook(name, made.type, made)

        async def found(name: str) -> list[SafetyNotice]:
            return [one for one in await notices.since(0) if one.id == name]

        async def write() -> None:
            for one in await found("evt_1"):
                await notices.update(one.evolve(lookup="done"))

        return Value(keys.notice("evt_1"), "", _PLAIN, "", lambda: found("evt_1"), lambda: found("evt_2"), write)

    async def model_access(self) -> Value:
        access, now = ModelAccessStore(self.redis, "scope"), self.clock.now()
        for model in ("sol", "luna"):
            await access.change(model, lambda found: found.evolve(status="ok", since=now))

        async def known(model: str) -> ModelAccess | None:
            return (await access.all()).get(model)

        write = lambda: access.change("sol", lambda found: found.evolve(tries=7))  # noqa: E731
        return Value(keys.access("scope"), "sol", _PLAIN, "", lambda: known("sol"), lambda: known("luna"), write)

    async def endpoint_fit(self) -> Value:
        access = ModelAccessStore(self.redis, "scope")
        await self.redis.set(keys.account_scope("default"), "scope")
        await access.note_endpoint(EndpointFit(upstream="chat", fits=True))
        read = lambda: known_endpoint(self.redis)  # noqa: E731
        return Value(keys.endpoint_fit("scope"), "", _PLAIN, "", read, access.all)

    async def appeal(self) -> Value:
        def step(kind: Any) -> AppealStep:
            return AppealStep(kind=kind, at=self.clock.now(), by="key_1", text="t")

        one, _ = [await self.appeals.open("shop", person, step("opened")) for person in (ANN, BOB)]
        read, another = lambda: self.appeals.find("shop", one.id), lambda: self.appeals.of("shop", "user", BOB)
        write = lambda: self.appeals.take("shop", one.id, step("note"))  # noqa: E731
        name = appeal_name("shop", one.id)
        return Value(keys.appeal("shop", one.id), "", _SEALED, name, read, another, write, "steps")

    async def conversation(self) -> Value:
        documents = ConversationDocuments(self.redis, MemoryGuard(self.redis, self.clock), self.clock)
        for name in ("conv_1", "conv_2"):
            made = Conversation(name, 1, {}).with_items([KeptItem("i", {"type": "message"})])
            assert await documents.store("shop", name, StoredDocument(made.content()), 900.0, None)

        async def found(name: str) -> Conversation:
            document = await documents.find("shop", name)
            assert document is not None
            return conversation_of(document.content, document.expected)

        async def write() -> None:
            changed = (await found("conv_1")).with_items([KeptItem("j", {"type": "message"})])
            assert await documents.store(
                "shop", "conv_1", StoredDocument(changed.content(), changed.version), 900, None
            )

        form = (keys.conversation("shop", "conv_1"), "doc", _SEALED, conversation_name("shop", "conv_1"))
        return Value(*form, lambda: found("conv_1"), lambda: found("conv_2"), write)

    async def console_session(self) -> Value:
        console, key = ConsoleAccess(self.redis, self.clock), (await self.apps.create_key("shop", ("ops",)))[0]
        token = await console.begin_session(key.id)
        (name,) = [raw.decode() async for raw in self.redis.scan_iter("vigil:console:*")]
        other = await console.begin_session(key.id)
        return Value(name, "", _TAGGED, name, lambda: console.session(token), lambda: console.session(other))

    async def legal_hold(self) -> Value:
        holds = LegalHolds(self.redis, self.clock, RetentionTimes(900, 900, 900))
        for app in ("shop", "bank"):
            await holds.place(f"app:{app}", actor=ACTOR, why=f"case {app}")

        async def why(name: str) -> list[str]:
            found = [one["reason"] for one in await holds.describe() if one["name"] == name]
            assert len(found) == 1, "it is held, whoever can read why"
            return found

        place = (keys.LEGAL_HOLD_NOTES, "app:shop", _PLAIN, "")
        return Value(*place, lambda: why("app:shop"), lambda: why("app:bank"))


KINDS: Final = {name: made for name, made in vars(Store).items() if not name.startswith("_")}


async def raw_of(redis: ArqRedis, value: Value) -> bytes:
    return await (redis.hget(value.key, value.field) if value.field else redis.get(value.key)) or b""


async def body_of(redis: ArqRedis, value: Value) -> dict[str, Any]:
    raw = await raw_of(redis, value)
    if value.form == _SEALED:
        return dict(VAULT.unseal_named(value.name, raw))
    return dict(json.loads(VAULT.macs.detach(value.key, value.name, raw) if value.form == _TAGGED else raw))


async def store(redis: ArqRedis, value: Value, body: dict[str, Any]) -> None:
    """Write the value as a newer release would, which knows the master keys."""
    raw = json.dumps(body).encode()
    if value.form == _SEALED:
        raw = VAULT.seal_named(value.name, body)
    elif value.form == _TAGGED:
        raw = VAULT.macs.attach(value.name, raw)
    await (redis.hset(value.key, value.field, raw) if value.field else redis.set(value.key, raw, keepttl=True))


def known(found: Any) -> Any:
    """Return what was read without what only a newer release knows."""
    if isinstance(found, (list, tuple)):
        return [known(one) for one in found]
    if hasattr(found, "model_dump"):
        return {name: known(one) for name, one in found.__dict__.items()}
    names = getattr(found, "__dataclass_fields__", None)
    return found if names is None else {name: known(getattr(found, name)) for name in names if name != "newer"}


async def what_is_read(value: Value) -> Any:
    """Return what was read, or "newer" if the reader was told that it needs a newer release."""
    try:
        return await value.read()
    except RecordUnreadable as error:
        return error.why if error.key == value.key else error
    except Refused as error:
        return "newer" if "newer release" in error.detail else error


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_fields_are_read_around_and_written_back(redis: ArqRedis, clock: FakeClock, kind: str) -> None:
    value: Value = await KINDS[kind](Store(redis, clock))
    before, body = await value.read(), await body_of(redis, value)
    assert before
    for one in body.get(value.inner, ()):
        one[FIELD] = NEW
    await store(redis, value, {**body, FIELD: NEW})
    assert known(await value.read()) == known(before)
    if value.write is None:
        return
    await value.write()
    after = await body_of(redis, value)
    assert after != {**body, FIELD: NEW}, "it was written"
    assert after[FIELD] == NEW
    if value.inner:
        assert after[value.inner][0][FIELD] == NEW


@pytest.mark.parametrize("kind", KINDS)
async def test_a_newer_schema_is_left_alone(redis: ArqRedis, clock: FakeClock, kind: str) -> None:
    value: Value = await KINDS[kind](Store(redis, clock))
    assert await value.read()
    other = known(await value.another())
    await store(redis, value, {**await body_of(redis, value), "schema_number": 99})
    raw = await raw_of(redis, value)
    assert await what_is_read(value) in ("newer", None, [], "", [""])
    if value.write is not None:
        with suppress(RecordUnreadable, Refused):
            await value.write()
    assert await raw_of(redis, value) == raw
    assert known(await value.another()) == other


async def test_a_quarantine_that_needs_a_newer_release_stays_in_force(redis: ArqRedis, clock: FakeClock) -> None:
    """Also when its end, as this release would read it, is over: it does not end it, and no block replaces it."""
    made = Store(redis, clock)
    value = await made.quarantine_row()
    row = await body_of(redis, value)
    await store(redis, value, {**row, "until_ms": 1, "schema_number": 99})
    raw = await raw_of(redis, value)
    with pytest.raises(Refused, match="are not sent"):
        await made.jobs.submit(new_job(safety_identifier=ANN))
    await redis.sadd(keys.UNNOTED_QUARANTINES, ANN)
    await made.quarantine.end_due()
    await made.quarantine.note_new()
    assert await made.quarantine.pending_cancellations() == [(BOB, [])]
    assert await redis.sismember(keys.UNNOTED_QUARANTINES, ANN), "a worker that can read it notes it"
    by_block = replace(load_row(VAULT.macs, ANN, VAULT.macs.attach(value.name, json.dumps(row))), until_ms=0)
    job = (await made.jobs.submit(new_job()))[0].job
    await Scripts(redis).commit(job.id, job.version, "", "c1", [automatic_command(VAULT.macs, by_block)])
    assert await raw_of(redis, value) == raw


async def test_what_a_newer_endpoint_wants_is_kept_while_an_older_process_changes_others(
    redis: ArqRedis, clock: FakeClock
) -> None:
    value = await Store(redis, clock).endpoint()
    await store(redis, value, {**await body_of(redis, value), "schema_number": 99})
    other = await value.another()
    await Endpoints(redis, clock).change("shop", other.id, lambda one: replace(one, events=("job.queued",)))
    wanted = await redis.smembers(keys.endpoint_events("shop"))
    assert {b"job.completed", b"job.queued"} <= wanted


@pytest.mark.parametrize("number", ["2", 1.5, None, True, [3]])
async def test_what_is_no_schema_number_is_no_newer_release(redis: ArqRedis, clock: FakeClock, number: Any) -> None:
    value = await Store(redis, clock).conversation()
    await store(redis, value, {**await body_of(redis, value), "schema_number": number})
    with pytest.raises(ContentDamaged):
        await value.read()
