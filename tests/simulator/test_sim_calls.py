"""The counts that let a test prove that nothing was sent twice, the mix, and the command's entry."""

import asyncio
import hashlib
import json
from pathlib import Path

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from waiting import LIMIT

from worker.simulator import SCENARIOS, Simulator, run
from worker.simulator.mix import Mix, MixError, load

SOL = "gpt-5.6-sol"


async def get(sim: Simulator, path: str, method: str = "GET") -> object:
    """Return the JSON of one of the simulator's own pages."""
    async with aiohttp.ClientSession() as session, session.request(method, sim.root + path) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_calls_are_counted_and_described_without_the_prompt(client: AsyncOpenAI, sim: Simulator) -> None:
    prompt = "[[sim: normal tokens=8]] a secret prompt"
    await client.responses.create(
        model=SOL,
        input=prompt,
        safety_identifier="u_7f3a",
        extra_headers={"X-Client-Request-Id": "mine-1"},
        stream=False,
    )
    made = await client.responses.create(model="gpt-5.6-luna", input="[[sim: check_then_block]]", background=True)
    await client.responses.retrieve(made.id)
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model=SOL, input="[[sim: quota]]")
    ledger = await get(sim, "/sim/calls")
    assert isinstance(ledger, dict)
    assert (ledger["creates"], ledger["polls"], ledger["chats"], ledger["resumes"]) == (3, 1, 0, 0)
    assert ledger["by_model"] == {SOL: 2, "gpt-5.6-luna": 1}
    assert ledger["by_scenario"] == {"normal": 2, "quota": 1}
    first = ledger["calls"][0]
    assert first["input_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()
    assert (first["client_request_id"], first["safety_identifier"], first["retry_count"]) == ("mine-1", "u_7f3a", "0")
    assert (first["status"], first["ended"], first["stream"], first["background"]) == (200, "completed", False, False)
    assert ledger["calls"][-1]["status"] == 429
    assert "secret" not in json.dumps(ledger)


async def test_the_speed_can_change_and_takes_waits_under_way_along(sim: Simulator, client: AsyncOpenAI) -> None:
    async def speed(body: object) -> int:
        async with aiohttp.ClientSession() as session, session.post(f"{sim.root}/sim/speed", json=body) as answer:
            return answer.status

    sim.set_speed(0.001)
    prompt = "[[sim: check_then_clear hold=1000 tokens=100]] x"
    made = await client.responses.create(model=SOL, input=prompt, background=True)
    assert (await client.responses.retrieve(made.id)).status in {"queued", "in_progress"}
    for wrong in ({}, {"speed": 0}, {"speed": True}, {"speed": "20"}, {"speed": 10**400}, [5]):
        assert await speed(wrong) == 400
    assert await speed({"speed": 1e6}) == 200
    async with asyncio.timeout(LIMIT):
        while (now := await client.responses.retrieve(made.id)).status != "completed":
            await asyncio.sleep(0.002)
    assert now.usage is not None
    assert now.usage.output_tokens == 100


async def test_reset_forgets_counts_and_tallies(client: AsyncOpenAI, sim: Simulator) -> None:
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model=SOL, input="[[sim: server_error]]")
    await get(sim, "/sim/reset", "POST")
    assert sim.calls()["creates"] == 0
    assert sim.calls()["calls"] == []
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model=SOL, input="[[sim: server_error]]")


async def test_the_pages_about_itself(sim: Simulator) -> None:
    assert await get(sim, "/sim/healthz") == {"ok": True}
    listed = await get(sim, "/sim/scenarios")
    assert isinstance(listed, list)
    assert [entry["name"] for entry in listed] == list(SCENARIOS)
    assert listed[0].keys() >= {"name", "description", "options", "expected"}
    options = await get(sim, "/sim/options")
    assert isinstance(options, dict)
    assert "hold" in options["options"]


async def test_two_hundred_streams_at_once(sim: Simulator) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": "Bearer k"}
    ) as session:

        async def one(number: int) -> bool:
            body = {"model": SOL, "input": f"{number}", "stream": True, "background": number % 2 == 0}
            async with session.post(f"{sim.url}/responses", json=body) as answer:
                return b"response.completed" in await answer.read()

        assert all(await asyncio.gather(*(one(number) for number in range(200))))
    assert sim.calls()["tokens_billed"]["output"] == 200 * 20
    assert sim.calls()["open_streams"] == 0


async def test_a_mix_is_drawn_for_requests_without_a_directive() -> None:
    table = [
        {"scenario": "normal", "weight": 3, "tokens": 2},
        {"directive": "[[sim: server_error]]", "weight": 1},
        {"scenario": "refusal", "weight": 0},
    ]
    async with (
        Simulator(speed=1000, mix=table, seed=7) as sim,
        AsyncOpenAI(api_key="k", base_url=sim.url, max_retries=0) as client,
    ):
        ends: list[str] = []
        for _ in range(20):
            try:
                ends.append((await client.responses.create(model=SOL, input="same")).status or "")
            except openai.InternalServerError:
                ends.append("error")
        answer = await client.responses.create(model=SOL, input="[[sim: normal tokens=5]]")
    assert set(ends) == {"completed", "error"}
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    draws = Mix(table, 7)
    assert ends == ["completed" if draws.draw().scenario == "normal" else "error" for _ in range(20)]


def test_a_mix_is_read_from_a_file(tmp_path: Path) -> None:
    toml, plain = tmp_path / "mix.toml", tmp_path / "mix.json"
    toml.write_text('[[mix]]\nscenario = "cut"\nhow = "fin"\nweight = 2\n')
    plain.write_text('[{"scenario": "cut", "how": "fin", "weight": 2}]')
    assert load(toml) == load(plain) == [{"scenario": "cut", "how": "fin", "weight": 2}]


@pytest.mark.parametrize(
    "table",
    [
        [],
        [{"weight": 1}],
        [{"scenario": "normal", "weight": -1}],
        [{"scenario": "normal", "weight": 0}],
        [{"scenario": "nothing_known"}],
        [{"scenario": "normal", "hold": "long"}],
    ],
)
def test_a_bad_mix_is_refused_at_the_start(table: list[dict[str, object]]) -> None:
    with pytest.raises(MixError):
        Simulator(mix=table)


def test_a_bad_mix_file_is_one_clear_error(tmp_path: Path) -> None:
    bad = tmp_path / "mix.json"
    bad.write_text("{")
    for path in (bad, tmp_path / "missing.toml"):
        with pytest.raises(MixError, match="mix"):
            load(path)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_speed_is_above_zero(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        Simulator(speed=speed)


async def test_run_serves_until_cancelled(sim: Simulator) -> None:
    with pytest.raises(OSError, match=r"in use|bind"):
        await run(port=sim.port)
    port = sim.port
    await sim.stop()
    task = asyncio.create_task(run(port=port, speed=1000))
    async with AsyncOpenAI(
        api_key="k", base_url=f"http://127.0.0.1:{port}/v1", max_retries=20, timeout=LIMIT
    ) as client:
        assert (await client.responses.create(model=SOL, input="x")).status == "completed"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
