"""Appeals are sealed, found by end user, job and case, noted step by step, and go long after they are closed."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from builders import ENCRYPTION_KEYS, PLAIN
from pydantic import SecretStr

from worker.jobs.errors import Refused
from worker.safety.appeals import AppealStep
from worker.store import keys
from worker.store.audit.acts import Actor
from worker.store.audit.hold_names import end_user_hold
from worker.store.audit.trail import Trail
from worker.store.connection.pool import connect
from worker.store.end_users.appeals import CLOSED_TTL_S, Appeals, is_in
from worker.store.envelope import MasterKeyring
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.lifecycle.legal_holds import LegalHolds

ANN = "a" * 64
TEXT = "She says it was homework: ☂"


@pytest.fixture
def appeals(redis, clock) -> Appeals:
    return Appeals(redis, clock)


def step(clock, kind, **given):
    return AppealStep(kind=kind, at=clock.now(), by="key_1", **given)


async def opened(appeals, clock, app="shop", person=ANN, **given):
    clock.step(1)
    return await appeals.open(app, person, step(clock, "opened", text=TEXT, **given))


async def closed(appeals, clock, appeal, outcome="withdrawn"):
    return await appeals.take(appeal.app, appeal.id, step(clock, "closed", text="r", outcome=outcome))


async def test_one_is_found_by_all_that_it_names_and_by_its_app_alone(redis, clock, appeals):
    made = await opened(appeals, clock, jobs=("job_1",), provider_case="C-1")
    await appeals.take("shop", made.id, step(clock, "jobs", jobs=("job_2",)))
    await appeals.take("shop", made.id, step(clock, "sent", provider_case="C-2"))
    for kind, value in (("user", ANN), ("job", "job_1"), ("job", "job_2"), ("case", "C-1"), ("case", "C-2")):
        assert [one.id for one in await appeals.of("shop", kind, value)] == [made.id], (kind, value)
        assert await appeals.of("other", kind, value) == []
    assert await appeals.find("other", made.id) is None
    assert await appeals.take("other", made.id, step(clock, "note", text="n")) is None
    assert await appeals.find("shop", "appeal_x:y") is None
    stored = b"".join([await redis.get(name) async for name in redis.scan_iter(keys.APPEAL + "*")])
    assert PLAIN or b"homework" not in stored


async def test_each_step_is_a_record_of_who_without_what(redis, clock, appeals):
    made = await opened(appeals, clock)
    await appeals.take("shop", made.id, step(clock, "note", text="Called her."))
    with pytest.raises(Refused):
        await appeals.take("shop", made.id, step(clock, "answered", text="No."))
    await closed(appeals, clock, made)
    rows = [json.loads(row.record) for row in await Trail(redis, clock).of_chain("app:shop")]
    assert [row["type"] for row in rows] == ["appeal.opened", "appeal.note", "appeal.closed"]
    assert all(row["data"]["by"] == "key_1" and row["data"]["appeal"] == made.id for row in rows)
    assert rows[0]["data"]["characters"] == len(TEXT)
    assert not [word for word in ("homework", "Called") if word in json.dumps(rows)]


async def test_of_steps_at_once_none_is_lost_and_one_outcome_counts(redis, clock, appeals):
    made = await opened(appeals, clock)
    notes = [appeals.take("shop", made.id, step(clock, "note", text=f"n{n}")) for n in range(12)]
    await asyncio.gather(*notes)
    assert {one.text for one in (await appeals.find("shop", made.id)).steps} == {TEXT, *(f"n{n}" for n in range(12))}
    ends = [closed(appeals, clock, made, outcome) for outcome in ("upheld", "overturned", "withdrawn")]
    results = await asyncio.gather(*ends, return_exceptions=True)
    assert sorted(isinstance(one, Refused) for one in results) == [False, True, True]
    rows = [json.loads(row.record)["type"] for row in await Trail(redis, clock).of_chain("app:shop")]
    assert rows.count("appeal.closed") == 1


async def test_pages_are_newest_first_and_by_state(clock, appeals):
    made = [await opened(appeals, clock, person=f"{n:064x}") for n in range(5)]
    await closed(appeals, clock, made[3])
    first, cursor = await appeals.page("shop", ("", ""), is_in(["open"]), 2, None)
    clock.step(1)
    await opened(appeals, clock)  # a newer one does not move the next page
    second, end = await appeals.page("shop", ("", ""), is_in(["open"]), 2, cursor)
    assert [one.id for one in (*first, *second)] == [made[n].id for n in (4, 2, 1, 0)]
    rest, end = await appeals.page("shop", ("", ""), is_in(["open"]), 2, end)
    assert (rest, end) == ([], None)
    with pytest.raises(Refused, match="cursor"):
        await appeals.page("shop", ("", ""), is_in([]), 2, "nonsense")


async def test_a_closed_one_goes_after_its_time_unless_a_hold_keeps_it(redis, clock, appeals):
    made = [await opened(appeals, clock, provider_case="C-1") for _ in range(2)]
    kept = await opened(appeals, clock, app="held")
    kept_person = await opened(appeals, clock, app="mall")
    holds, lee = LegalHolds(redis, clock, RetentionTimes()), Actor("key")
    for name in ("app:held", end_user_hold("mall", ANN)):
        await redis.sadd(keys.LEGAL_HOLDS, name)
    for one in (made[0], kept, kept_person):
        await closed(appeals, clock, one)
    clock.step(CLOSED_TTL_S - 1)
    assert await appeals.sweep() == 0
    clock.step(2)
    assert await appeals.sweep() == 1
    assert [one.id for one in await appeals.of("shop", "case", "C-1")] == [made[1].id], "an open one stays"
    assert await redis.zrange(keys.appeal_index("shop"), 0, -1) == [made[1].id.encode()]
    assert await appeals.find("held", kept.id) is not None
    assert await appeals.find("mall", kept_person.id) is not None
    await holds.release("app:held", actor=lee, why="over")
    clock.step(3601)
    assert await appeals.sweep() == 1
    assert await appeals.find("held", kept.id) is None


async def test_a_notice_of_the_provider_is_linked_once_to_the_open_ones_of_its_case(clock, appeals):
    still_open, over = [await opened(appeals, clock, provider_case="C-1") for _ in range(2)]
    await closed(appeals, clock, over)
    other = await opened(appeals, clock, app="other", provider_case="C-1")
    notice = step(clock, "notice", provider_case="C-1")
    for _ in range(2):
        await appeals.link_notice("shop", "C-1", "evt_1", ("job_9",), notice)
    found = await appeals.find("shop", still_open.id)
    assert [(one.kind, one.notice) for one in found.steps] == [("opened", None), ("notice", "evt_1")]
    assert found.jobs == ("job_9",)
    assert len((await appeals.find("shop", over.id)).steps) == 2
    assert len((await appeals.find("other", other.id)).steps) == 1


@pytest.mark.skipif(PLAIN, reason="nothing is sealed")
async def test_one_that_was_moved_is_refused_and_a_rotation_takes_them_along(redis, valkey_url, clock, appeals):
    made, planted = await opened(appeals, clock), await opened(appeals, clock)
    await redis.set(keys.appeal("shop", planted.id), await redis.get(keys.appeal("shop", made.id)))
    with pytest.raises(Refused, match="can't be read"):
        await appeals.find("shop", planted.id)
    assert [one.id for one in await appeals.of("shop", "user", ANN)] == [made.id]
    new = SecretStr(base64.urlsafe_b64encode(bytes(range(1, 33))).decode())
    both = connect(valkey_url, keyring=MasterKeyring.from_settings([new, SecretStr(ENCRYPTION_KEYS)]))
    only_new = connect(valkey_url, keyring=MasterKeyring.from_settings([new]))
    try:
        await redis.delete(keys.appeal("shop", planted.id))
        counts = await KeyRotation(both).run()
        assert (counts["changed_meanwhile"], counts["unreadable"]) == (0, 0)
        assert (await Appeals(only_new, clock).find("shop", made.id)).reason == TEXT
    finally:
        await both.aclose()
        await only_new.aclose()
