"""The worker's own port, the API's metrics and readiness, and the number for an autoscaler."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from api_server import running
from arq.connections import ArqRedis
from in_process import Stage, until
from processes import Processes, free_port
from promise_checks import submit
from waiting import LIMIT, soon

from worker.clock import Clock
from worker.settings import Settings
from worker.store.admission.circuit_breaker import CircuitBreaker
from worker.tasks.health_server import HealthServer
from worker.telemetry.metrics import LABELS, METRICS, MODELS

KNOWN_MODELS = set(Settings(_env_file=None).catalogue().models)  # type: ignore[call-arg]
SLOW = "[[sim: normal tokens=4000 rate=20]] CANARY-prompt"  # it goes on until the provider hurries


def numbers(text: str) -> dict[str, float]:
    """Sample -> value."""
    rows = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


async def get(url: str) -> tuple[int, str]:
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        answer = await client.get(url)
        return answer.status_code, answer.text


async def test_a_worker_told_to_leave_is_unready_at_once_and_alive_to_the_end(tmp_path: Path) -> None:
    async with Processes(tmp_path, VIGIL_UPSTREAM="stream", VIGIL_DRAIN_SECONDS="600") as stage:
        port = free_port()
        at = f"http://127.0.0.1:{port}"
        worker = await stage.start("worker", "--port", str(port))
        await until("the worker to be ready", lambda: _says(at, 200))
        job_id = await submit(stage.redis, SLOW)

        async def streams() -> bool:
            return bool(numbers((await get(f"{at}/metrics"))[1])["vigil_worker_inflight"])

        await until("the job to run", streams)
        worker.send_signal(signal.SIGTERM)
        await until("the worker to be unready", lambda: _says(at, 503))
        assert worker.returncode is None
        assert await get(f"{at}/healthz") == (200, "ok\n")
        assert await get(f"{at}/readyz") == (503, "draining\n")
        text = (await get(f"{at}/metrics"))[1]
        assert numbers(text)["vigil_worker_draining"] == 1
        waiting = await submit(stage.redis, SLOW)
        stage.hurry()
        assert await soon(worker.wait()) == 0
        status = {name: (await stage.redis.hget(f"vigil:job:{name}", "rec")) for name in (job_id, waiting)}
        assert b'"status":"completed"' in status[job_id]
        assert b'"status":"queued"' in status[waiting], "nothing was claimed while it drained"
        with pytest.raises(httpx2.ConnectError):
            await get(f"{at}/healthz")


async def _says(at: str, status: int) -> bool:
    try:
        return (await get(f"{at}/readyz"))[0] == status
    except httpx2.TransportError:
        return False


async def test_without_redis_a_worker_is_alive_and_unready(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        port = free_port()
        at = f"http://127.0.0.1:{port}"
        worker = await stage.start("worker", "--port", str(port))
        await until("the worker to be ready", lambda: _says(at, 200))
        await stage.valkey.stop()
        await until("the worker to be unready", lambda: _says(at, 503))
        assert await get(f"{at}/healthz") == (200, "ok\n")
        await stage.valkey.start()
        await until("the worker to be ready again", lambda: _says(at, 200))
        assert await stage.term(worker) == 0


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        port = free_port()
        first = await stage.start("worker", "--port", str(port))
        await until("the first to be ready", lambda: _says(f"http://127.0.0.1:{port}", 200))
        second = await stage.start("worker", "--port", str(port))
        assert await second.wait() == 1
        assert f"port {port} on 127.0.0.1 is taken" in stage.logs()
        assert "Traceback" not in stage.logs()
        await stage.kill(first)


@pytest.fixture
async def small() -> AsyncIterator[int]:
    async def why() -> str:
        return ""

    async with HealthServer(why, lambda: b"vigil_up 1\n").listening("127.0.0.1", 0) as port:
        yield port


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"HEAD /readyz HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 200),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\r\n\r\n", 405),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
    ],
)
async def test_the_small_port_answers_whatever_is_sent(small: int, sent: bytes, status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert sent.startswith(b"HEAD") == answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("sent", [b"GET /" + b"x" * 100_000, b"GET /healthz HTTP/1.1\r\nHost"])
async def test_the_small_port_survives_what_is_no_request(small: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", small)
    writer.write(sent)
    writer.write_eof()
    with contextlib.suppress(ConnectionError):  # it may hang up before all was sent
        assert await reader.read() == b""
    writer.close()
    assert (await get(f"http://127.0.0.1:{small}/healthz"))[0] == 200


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)


async def test_the_queue_is_told_from_redis_and_names_nobody(
    redis: ArqRedis, valkey_url: str, settings: Settings, clock: Clock
) -> None:
    async with Stage(redis, valkey_url) as stage, running(settings, redis, clock) as api:
        for _ in range(3):
            await stage.submit("CANARY-prompt", model="gpt-5.6-sol")
        _, text = await get(f"{api.base_url}/metrics")
        found = numbers(text)
        assert found['vigil_queue_depth{state="queued"}'] == 3
        assert found["vigil_redis_up"] == 1
        assert found["vigil_workers_alive"] == 0
        assert found['vigil_account_state{account="normal",provider_account="default"}'] == 1
        assert 0 <= found["vigil_queue_oldest_age_seconds"] < LIMIT
        assert found["vigil_redis_used_memory_bytes"] > 0
        await stage.worker()

        async def drained() -> bool:
            now = numbers((await get(f"{api.base_url}/metrics"))[1])
            return now['vigil_queue_depth{state="queued"}'] == 0 and now["vigil_workers_alive"] == 1

        await until("the scrape to see the worker and an empty queue", drained)
        text = (await get(f"{api.base_url}/metrics"))[1]
        assert 'vigil_jobs_finished_total{model="gpt-5.6-sol",status="completed"}' in text
        assert "CANARY" not in text
        assert "job_0" not in text
        assert "stage" not in text, "no app"
        _every_sample_is_listed(text)


def _every_sample_is_listed(text: str) -> None:
    """Name and labels of each sample stand in the table, values in their vocabularies."""
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        row = METRICS[base]
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
        pairs.pop("le", None)
        assert pairs.keys() == set(row.labels), line
        for label, value in pairs.items():
            allowed = LABELS[label]
            if allowed is MODELS:
                assert value in KNOWN_MODELS | {"other"}, line
            elif not isinstance(allowed, str):
                assert value in allowed | {"other"}, line


async def test_metrics_without_redis_say_so(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        port = free_port()
        api = await stage.start("api", "--port", str(port))
        at = f"http://127.0.0.1:{port}"
        await until("the API to be ready", lambda: _says(at, 200))
        await stage.valkey.stop()

        async def redis_is_down() -> bool:
            status, text = await get(f"{at}/metrics")
            assert status == 200
            return numbers(text)["vigil_redis_up"] == 0 and "vigil_queue_depth{" not in text

        await until("the scrape to say that Redis is away", redis_is_down)
        await stage.kill(api)


async def test_the_wanted_slots_are_what_is_ready_and_what_runs(
    redis: ArqRedis, valkey_url: str, settings: Settings, clock: Clock
) -> None:
    async with Stage(redis, valkey_url) as stage, running(settings, redis, clock) as api:
        client = await api.client(scopes=("ops",))
        for _ in range(3):
            await stage.submit(SLOW)
        nobody = (await client.get("/v1/ops/scale")).json()
        assert nobody == {
            "wanted": 3, "ready": 3, "running": 0, "held": 0, "workers": 0, "slots": 0, "held_back": None,
            "partitions_away": [],
        }  # fmt: skip
        await stage.worker(max_jobs=2, app_slot_share=1.0)

        async def two_run() -> bool:
            now = (await client.get("/v1/ops/scale")).json()
            return (now["ready"], now["running"], now["wanted"], now["slots"]) == (1, 2, 3, 2)

        await until("two to run and one to wait", two_run)


async def test_while_the_account_is_at_fault_nothing_more_is_wanted(
    redis: ArqRedis, settings: Settings, clock: Clock, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url) as stage, running(settings, redis, clock) as api:
        client = await api.client(scopes=("ops",))
        for _ in range(5):
            await stage.submit(SLOW)
        await CircuitBreaker(redis, "key:test").trip("job_x", "quota_exhausted")
        scale = (await client.get("/v1/ops/scale")).json()
        assert (scale["wanted"], scale["ready"], scale["held_back"]) == (1, 5, "circuit_open")


async def test_an_api_about_to_stop_is_not_ready(redis: ArqRedis, settings: Settings, clock: Clock) -> None:
    from api.app import create_app

    app = create_app(settings, redis, clock)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/readyz")).status_code == 200
        app.state.context.broadcaster.close_watchers()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "shutting_down")
        assert (await client.get("/healthz")).status_code == 200


async def test_a_job_that_nobody_takes_is_told_of_once(
    redis: ArqRedis, valkey_url: str, telemetry_events: list[tuple[str, dict[str, object]]]
) -> None:
    async with Stage(redis, valkey_url, max_jobs=1, stuck_seconds=1.0) as stage:
        worker = await stage.worker()
        await stage.submit("[[sim: queued_forever]] x")
        waiting = await stage.submit("waits")
        await until("it to be old", lambda: _older(stage, waiting))
        for _ in range(3):
            await worker.components.sweeper.report_stuck_queue()
        stuck = [fields for name, fields in telemetry_events if name == "queue.stuck"]
        assert len(stuck) == 1
        assert stuck[0]["count"] == 1
        assert stuck[0]["seconds"] > 1


async def _older(stage: Stage, job_id: str) -> bool:
    return (Clock().now() - (await stage.job(job_id)).created_at).total_seconds() > 1.1
