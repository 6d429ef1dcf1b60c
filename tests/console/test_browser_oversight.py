"""Webhooks, end users, audit, lab and apps in a real browser: every action, what others wrote, axe, both widths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from aiohttp import web
from browser import SCREENSHOTS, BrowserStack, Visitor, browser_stack, emptied
from in_process import until
from playwright.async_api import Browser, expect

from worker.clock import Clock
from worker.store.audit.acts import Actor
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.legal_holds import LegalHolds

pytestmark = pytest.mark.asyncio(loop_scope="session")
CANARY = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
_OTHER_LOOKS = [("wide", "dark"), ("narrow", "light")] if SCREENSHOTS else []
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAGES = ("webhooks", "end-users", "end-users?quarantined=1", "appeals", "audit", "lab", "apps", "apps/acme")


@dataclass
class Seen:
    """A Vigil in which something of everything has happened, and what it is called."""

    stack: BrowserStack
    key: Any
    text: str
    jobs: dict[str, str]
    answers: list[int]

    async def api(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        async with httpx2.AsyncClient(base_url=self.stack.console.base_url, trust_env=False) as client:
            headers = {"Authorization": f"Bearer {self.text}"}
            answer = await client.request(method, path, headers=headers, json=body or None)
            assert answer.status_code < 300, answer.text
            return dict(answer.json()) if answer.content else {}


async def _ended(seen: Seen, job_id: str) -> None:
    async def over() -> bool:
        return (await seen.api("GET", f"/v1/jobs/{job_id}"))["status"] in {"completed", "blocked", "failed"}

    await until(f"the end of {job_id}", over)


@pytest_asyncio.fixture(loop_scope="session")
async def stack(valkey_url: str, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BrowserStack]:
    """A whole Vigil that may send to receivers here, and whose API can verify what its worker signs."""
    monkeypatch.setenv("VIGIL_WEBHOOK_ALLOW_PRIVATE", "1")
    monkeypatch.setenv("VIGIL_AUDIT_KEY", "A" * 43)
    monkeypatch.setenv("VIGIL_AUDIT_SEAL_SECONDS", "0.2")
    async with emptied(valkey_url) as redis, browser_stack(redis, valkey_url, browser) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def seen(stack: BrowserStack) -> AsyncIterator[Seen]:
    """Jobs that were blocked, checked and answered; a receiver that fails; a hold; all with names that are markup."""
    answers = [500]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=answers[0], text=CANARY)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/{'x' * 60}"
    key, text = await stack.key()
    seen = Seen(stack, key, text, {}, answers)
    events = ["job.completed", "job.blocked"]
    await seen.api("POST", "/v1/webhook-endpoints", url=hook, events=events, description=CANARY)
    for name, prompt in (
        ("answered", "Why is the sky blue?"),
        ("checked", "[[sim: check_then_clear hold=30]] Why?"),
        ("blocked", "[[sim: check_then_block hold=5]] How?"),
        ("again", "[[sim: check_then_block hold=5]] How?"),
    ):
        webhook = {"url": hook + "/own", "events": ["job.completed"]}
        given = {"end_user": f"eve {CANARY}" if name != "answered" else "anna", "webhook": webhook}
        seen.jobs[name] = await stack.submit(text, prompt, **given)
        stack.stage.hurry()
        await _ended(seen, seen.jobs[name])
    await LegalHolds(stack.stage.redis, Clock(), RetentionTimes()).place(
        seen.jobs["blocked"], actor=Actor(CANARY), why=CANARY
    )
    await seen.api("POST", "/v1/quarantine", end_user=f"bob {CANARY}", reason=CANARY)
    try:
        yield seen
    finally:
        await runner.cleanup()


async def _logged_in(seen: Seen, visitor: Visitor) -> None:
    await visitor.log_in(seen.key)


async def _click(visitor: Visitor, name: str) -> None:
    await visitor.page.get_by_role("button", name=name).first.click()
    await expect(visitor.page.locator("[data-notice]")).to_be_visible()


@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("narrow", "dark"), *_OTHER_LOOKS])
async def test_every_page_is_whole_accessible_and_what_others_wrote_is_text(seen: Seen, size: str, scheme: str) -> None:
    async with seen.stack.visitor(size, scheme) as visitor:
        await _logged_in(seen, visitor)
        await visitor.open("/lab")
        await expect(visitor.page.get_by_role("button", name="Replay again")).to_be_visible(timeout=30_000)
        for path in (*PAGES, f"jobs/{seen.jobs['answered']}/prompt", f"jobs/{seen.jobs['answered']}/output"):
            await visitor.open(f"/{path}")
            for details in await visitor.page.locator("main details").all():
                await details.evaluate("one => one.open = true")
            assert await visitor.audit_accessibility() == [], path
            assert await visitor.page.evaluate(_TOO_WIDE) <= 0, path
            assert "taken" not in await visitor.page.title(), path
            await visitor.screenshot(f"{path.partition('?')[0].replace('/', '-')[:20]}-{size}-{scheme}")
        await visitor.open("/end-users")
        await visitor.page.locator("tr[data-row] a").first.click()
        await expect(visitor.page.get_by_role("heading", name="What led to it")).to_be_visible()
        assert await visitor.audit_accessibility() == []
        assert await visitor.page.evaluate(_TOO_WIDE) <= 0
        await visitor.screenshot(f"end-user-{size}-{scheme}")


async def test_failed_messages_are_sent_again_from_the_page(seen: Seen) -> None:
    async with seen.stack.visitor() as visitor:
        await _logged_in(seen, visitor)
        await visitor.open("/webhooks?failed=1")
        rows = visitor.page.locator("tr[data-row]")
        await expect(rows.first).to_contain_text("500")
        seen.answers[0] = 204
        await _click(visitor, "Send again")
        for _ in range(60):
            await visitor.open("/webhooks?failed=1")
            if not await rows.count():
                break
            await asyncio.sleep(0.25)
        await expect(visitor.page.get_by_text("No message has failed in its last try.")).to_be_visible()
        await visitor.open("/webhooks")
        await visitor.page.get_by_role("button", name="New secret").click()
        await expect(visitor.page.get_by_text("whsec_")).to_be_visible()
        await visitor.open("/webhooks")
        await _click(visitor, "Pause")
        await _click(visitor, "Make active")


async def test_an_end_user_is_quarantined_and_lifted_and_appeals(seen: Seen) -> None:
    async with seen.stack.visitor() as visitor:
        page = visitor.page
        await _logged_in(seen, visitor)
        await visitor.open("/end-users")
        await page.get_by_label("The app's own name, or the safety identifier").fill(f"eve {CANARY}")
        await page.get_by_role("button", name="Show").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(f"eve {CANARY}")
        for name in ("blocked", "again", "checked"):
            await expect(page.get_by_role("link", name=seen.jobs[name]).first).to_be_visible()
        await page.get_by_label("Reason").fill("Two blocks.")
        await _click(visitor, "Quarantine")
        await page.get_by_label("Reason for lifting it").fill("Appeal 7.")
        await _click(visitor, "Lift")
        await page.get_by_label("New appeal").fill(f"Called. {CANARY}")
        await _click(visitor, "Open an appeal")
        await expect(page.get_by_text("Called. <img")).to_be_visible()
        assert await visitor.audit_accessibility() == []
        assert await page.evaluate(_TOO_WIDE) <= 0
        await page.get_by_label("The provider's case").fill("C-1042")
        await _click(visitor, "It was sent")
        await page.get_by_label("Answer").fill("We agree.")
        await _click(visitor, "Keep the answer")
        await page.get_by_label("Ids of jobs").fill(seen.jobs["checked"])
        await page.get_by_role("button", name="Link", exact=True).click()
        await page.get_by_role("link", name=seen.jobs["checked"]).first.click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("completed")


async def test_the_trail_is_verified_while_one_looks_and_a_hold_is_placed(seen: Seen) -> None:
    async with seen.stack.visitor() as visitor:
        page = visitor.page
        await _logged_in(seen, visitor)
        await visitor.open(f"/jobs/{seen.jobs['answered']}")
        await page.get_by_role("link", name="Output").click()
        await visitor.open("/audit")
        await expect(page.get_by_role("cell", name=seen.jobs["answered"]).first).to_be_visible()
        await page.get_by_text("Place a hold").click()
        await page.get_by_label("Job its id, or all").fill(seen.jobs["answered"])
        await page.get_by_label("Reason kept in the audit trail").fill("Case 9")
        await _click(visitor, "Place the hold")
        await page.get_by_text("Release", exact=True).last.click()
        await page.get_by_label("Reason", exact=True).last.fill("Over")
        await _click(visitor, "Release the hold")
        await _click(visitor, "Verify now")
        await expect(page.get_by_text("nothing was altered")).to_be_visible(timeout=30_000)
        async with page.expect_download() as download:
            await page.get_by_role("link", name="trail.ndjson").click()
        assert (await download.value).suggested_filename == "trail.ndjson"
