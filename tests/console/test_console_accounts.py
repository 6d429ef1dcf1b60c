"""The page Now with several accounts at the provider: each with its state and circuit."""

from __future__ import annotations

from pathlib import Path

from arq.connections import ArqRedis
from console_server import serving
from two_accounts import SECRETS, accounts_file

from worker.settings import Settings
from worker.store.admission.circuit_breaker import CircuitBreaker


async def test_now_shows_each_account_and_whose_circuit_is_open(
    settings: Settings, redis: ArqRedis, tmp_path: Path
) -> None:
    file = accounts_file(tmp_path, "http://127.0.0.1:1/v1")
    several = settings.model_copy(update={"accounts_file": file}).with_account_secrets(SECRETS)
    await CircuitBreaker(redis, "key:x", "research").trip("job_x", "quota_exhausted")
    async with serving(several, redis) as console:
        page = (await (await console.logged_in()).get("/console/now")).text
    table = page.partition('id="accounts"')[2].partition("</section>")[0]
    rows = table.split("<tr>")[2:]
    assert [row.partition("<bdi>")[2].partition("<")[0] for row in rows] == ["default", "research"]
    assert "closed" in rows[0]
    assert "quota exhausted" in rows[1]
    assert page.count('id="account') == 3, "the table, and the families of each account"
    assert "CANARY" not in page


async def test_with_one_account_the_page_is_as_it_was(settings: Settings, redis: ArqRedis) -> None:
    async with serving(settings, redis) as console:
        page = (await (await console.logged_in()).get("/console/now")).text
    assert 'id="accounts"' not in page
    assert "The provider's account, by family" in page
