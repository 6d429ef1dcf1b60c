"""The sealer: every record is sealed once, with any number of workers, and the signing key is never in Redis."""

import asyncio
import stat

import pytest
from builders import FakeClock, new_job
from in_process import Stage, until

from worker.audit import ship
from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.seals import BadSeal, checkpoint, parse, verify_signature
from worker.clock import Clock
from worker.settings import Settings
from worker.store import keys
from worker.store.audit.seals import Seals
from worker.store.audit.verification import TrailVerification
from worker.tasks.maintenance.audit_sealer import AuditSealer

SIGNER = Signer(b"s" * 32)
TRUSTED = TrustedKeys([SIGNER.public])


def settings(folder, **more) -> Settings:
    return Settings(_env_file=None, data_dir=folder, audit_seal_seconds=0.05, **more)


def sealer(redis, folder, **more) -> AuditSealer:
    return AuditSealer(redis, Clock(), settings(folder, **more))


async def lines(redis) -> list[bytes]:
    return await redis.lrange(keys.SEALS, 0, -1)


async def test_all_is_sealed_in_ranges_of_a_thousand_and_then_nothing_is_left(redis, jobs, tmp_path):
    for _ in range(3):
        await jobs.submit(new_job())
    for n in range(2100):
        await redis.xadd(keys.AUDIT, {"hash": f"{n:064x}", "record": "{}"})
    one = sealer(redis, tmp_path)
    assert await one.seal(SIGNER) == 3
    assert await one.seal(SIGNER) == 0
    bodies = [parse(text).body for text in await lines(redis)]
    assert [(b["number"], b["count"], b["total"]) for b in bodies] == [(1, 1000, 1000), (2, 1000, 2000), (3, 103, 2103)]


async def test_many_sealers_at_once_seal_everything_once(redis, jobs, tmp_path):
    for _ in range(10):
        await jobs.submit(new_job())
    made = await asyncio.gather(*(sealer(redis, tmp_path).seal(SIGNER) for _ in range(5)))
    assert sum(made) == 1
    assert (await TrailVerification(redis, Clock(), TRUSTED).verify()).unsealed == 0


async def test_a_worker_that_is_stopped_seals_what_it_wrote_last(redis, valkey_url, tmp_path):
    copy = tmp_path / "seals.ndjson"
    async with Stage(redis, valkey_url, data_dir=tmp_path, audit_seal_seconds=3600, audit_checkpoints=copy) as stage:
        await stage.worker()
        await stage.settled(await stage.submit("Hello"))
    report = await TrailVerification(
        redis, Clock(), TrustedKeys([load_or_create("A" * 43, tmp_path, None).public])
    ).verify(ship.read(copy))
    assert (report.good, report.unsealed) == (True, 0), report
    assert report.records > 3


async def test_a_seal_whose_answer_was_lost_is_taken_once(redis, jobs, tmp_path):
    await jobs.submit(new_job())
    seals = Seals(redis)
    rows = await sealer(redis, tmp_path)._trail.page("-")
    seal = checkpoint(SIGNER, None, rows, Clock().now())
    assert await seals.append(None, seal)
    assert await seals.append(None, seal), "sent again"
    other = checkpoint(SIGNER, None, rows, FakeClock().now())
    assert not await seals.append(None, other), "another one came first"
    assert await lines(redis) == [seal.line]


async def test_a_worker_seals_by_itself_and_ships_what_it_sealed(redis, valkey_url, tmp_path):
    copy = tmp_path / "elsewhere" / "seals.ndjson"
    async with Stage(redis, valkey_url, data_dir=tmp_path, audit_seal_seconds=0.05, audit_checkpoints=copy) as stage:
        await stage.worker()
        await stage.worker()
        job_id = await stage.submit("Hello")
        await stage.settled(job_id)

        async def shipped() -> bool:
            return copy.exists() and list(ship.read(copy)) == await lines(redis) and await redis.llen(keys.SEALS) > 0

        await until("the copy to have every seal", shipped)
        given = stage.settings().audit_key.get_secret_value()
        report = await TrailVerification(
            redis, Clock(), TrustedKeys([load_or_create(given, tmp_path, None).public])
        ).verify(ship.read(copy))
        assert report.good, report.faults


async def test_a_key_is_made_once_for_this_user_alone_and_not_kept_in_redis(redis, jobs, tmp_path):
    await jobs.submit(new_job())
    running = asyncio.create_task(sealer(redis, tmp_path / "data").run())
    await until("a seal", lambda: redis.llen(keys.SEALS))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    path = tmp_path / "data" / "audit.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["audit.key"]
    assert (
        load_or_create(None, path.parent, None).public == load_or_create(None, path.parent, Clock().random_bytes).public
    )
    assert (
        verify_signature(parse((await lines(redis))[0]), TrustedKeys([load_or_create(None, path.parent, None).public]))
        == "good"
    )
    secret = path.read_text().strip()
    for name in await redis.keys("*"):
        assert secret.encode() not in (await redis.dump(name) or b"")


async def test_a_folder_that_can_not_be_written_seals_nothing_and_stops_nobody(redis, jobs, tmp_path):
    (tmp_path / "file").write_text("")
    await jobs.submit(new_job())
    running = asyncio.create_task(sealer(redis, tmp_path / "file").run())
    await asyncio.sleep(0.2)
    assert not running.done()
    running.cancel()
    assert await lines(redis) == []


async def test_what_was_shipped_is_never_changed(redis, jobs, tmp_path):
    await jobs.submit(new_job())
    one, path = sealer(redis, tmp_path), tmp_path / "copy"
    await one.seal(SIGNER)
    await one.ship(path)
    before = path.read_bytes()
    await redis.delete(keys.SEALS)
    await jobs.submit(new_job())
    await one.seal(SIGNER)
    await jobs.submit(new_job())
    await one.seal(SIGNER)
    with pytest.raises(BadSeal, match="does not follow"):
        await one.ship(path)
    assert path.read_bytes() == before


async def test_a_line_that_a_crash_cut_short_is_written_anew(redis, jobs, tmp_path):
    one, path = sealer(redis, tmp_path), tmp_path / "copy"
    for _ in range(3):
        await jobs.submit(new_job())
        await one.seal(SIGNER)
        await one.ship(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    await one.ship(path)
    assert path.read_bytes() == whole
