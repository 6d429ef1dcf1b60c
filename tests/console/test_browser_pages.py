"""The console in a real browser: log in, see a check live, cancel, and what axe says of each page."""

from __future__ import annotations

import re

import pytest
from browser import SIZES, BrowserStack, Visitor
from in_process import LUNA
from playwright.async_api import expect

from worker.clock import Clock
from worker.store.apps import Apps

pytestmark = pytest.mark.asyncio(loop_scope="session")
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CHECKED = "[[sim: check_then_clear hold=600]] Why is the sky blue?"


async def test_from_the_link_to_a_running_check_and_its_end(stack: BrowserStack) -> None:
    """What a newcomer does in the first minute; the page changes by itself."""
    key, _ = await stack.key()
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await page.get_by_role("link", name="Try it").click()
        await page.get_by_label("What the simulated provider does").select_option("check_then_clear")
        await page.get_by_label("Its check or silence lasts").fill("600")
        await page.get_by_label("Do this").select_option("wait")
        await page.get_by_role("button", name="Submit").click()
        await page.wait_for_url("**/console/jobs/job_*")
        heading = page.get_by_role("heading", level=1)
        await expect(heading).to_contain_text("checking", timeout=30_000)
        await expect(page.locator(".b-signalled rect").first).to_be_attached()
        await page.get_by_text(re.compile("As a table")).first.click()
        await expect(page.get_by_role("cell", name="safety check, signalled")).to_be_visible()
        stack.stage.hurry()
        await expect(heading).to_contain_text("completed", timeout=30_000)
        await expect(page.get_by_role("cell", name="safety check, signalled")).to_be_visible()  # still open
        assert await page.evaluate("document.cookie") == ""


async def test_cancel_from_the_page(stack: BrowserStack) -> None:
    key, text = await stack.key()
    job_id = await stack.submit(text, CHECKED)
    async with stack.visitor() as visitor:
        await visitor.log_in(key)
        await visitor.open(f"/jobs/{job_id}")
        await visitor.page.get_by_role("button", name="Cancel").click()
        await expect(visitor.page.get_by_role("heading", level=1)).to_contain_text("cancelled", timeout=30_000)
        await expect(visitor.page.get_by_role("button", name="Cancel")).to_have_count(0)
        assert "notice=" not in visitor.page.url


async def test_accept_an_offer_and_read_the_disclosure(stack: BrowserStack) -> None:
    key, text = await stack.key()
    rule = {"on_delay": {"action": "offer", "after_seconds": 0, "model": LUNA}}
    job_id = await stack.submit(text, CHECKED, policy=rule)
    async with stack.visitor() as visitor:
        await visitor.log_in(key)
        await visitor.open(f"/jobs/{job_id}")
        await visitor.page.get_by_role("button", name=f"Accept the offer of {LUNA}").click(timeout=30_000)
        await expect(visitor.page.get_by_role("heading", level=1)).to_contain_text("completed", timeout=30_000)
        await expect(visitor.page.get_by_role("heading", name="Another model served")).to_be_visible()
        await expect(visitor.page.locator(".m-substitution").first).to_be_attached()


async def test_the_keys(stack: BrowserStack) -> None:
    key, text = await stack.key()
    jobs = [await stack.submit(text, "Hi") for _ in range(3)]
    async with stack.visitor() as visitor:
        page = visitor.page
        await visitor.log_in(key)
        await page.keyboard.press("g")
        await page.keyboard.press("j")
        await page.wait_for_url("**/console/jobs")
        await page.keyboard.press("/")
        await expect(page.get_by_label("Job or response id")).to_be_focused()
        await page.keyboard.press("Escape")
        await page.keyboard.press("j")
        await page.keyboard.press("j")
        await expect(page.locator("tr.current")).to_contain_text(jobs[1])
        await page.keyboard.press("k")
        await expect(page.locator("tr.current")).to_contain_text(jobs[2])
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/console/jobs/{jobs[2]}")
        await page.go_back()
        await page.wait_for_url("**/console/jobs")


async def _pages(stack: BrowserStack) -> dict[str, str]:
    """A path for each page, with something to see on it."""
    _, text = await stack.key()
    rule = {"on_delay": {"action": "switch", "after_seconds": 0, "model": LUNA}}
    substituted = await stack.submit(text, CHECKED, policy=rule, metadata={"ticket": "A-17"}, end_user="anna")
    blocked = await stack.submit(text, "[[sim: check_then_block hold=1]] x")
    checking = await stack.submit(text, CHECKED, policy={"on_delay": {"action": "wait"}})
    await stack.stage.settled(substituted)
    await stack.stage.settled(blocked)
    await stack.stage.reaches(checking, "a check", lambda job: job.open_checks)
    paths = {"now": "/now", "jobs": "/jobs", "empty": "/jobs?model=none", "try": "/try", "missing": "/jobs/job_0"}
    for name, job_id in (("substituted", substituted), ("blocked", blocked), ("checking", checking)):
        paths[name] = f"/jobs/{job_id}"
    return paths | {"audit": f"/jobs/{blocked}/audit", "support": f"/jobs/{blocked}/support"}


async def _look(visitor: Visitor, paths: dict[str, str], label: str) -> None:
    for name, path in paths.items():
        await visitor.open(path)
        await visitor.screenshot(f"{name}-{label}")
        assert await visitor.audit_accessibility() == [], name
        for width in (None, 320) if "narrow" in label else (None,):
            if width:
                await visitor.page.set_viewport_size({"width": width, "height": 700})
            wider = await visitor.page.evaluate(_TOO_WIDE)
            assert wider <= 0, f"{name} is {wider} px wider than the window of {width or label}"
        width, height = SIZES[label.partition("-")[0]]
        await visitor.page.set_viewport_size({"width": width, "height": height})


async def test_each_page_dark_and_light_wide_and_narrow(stack: BrowserStack) -> None:
    """WCAG A and AA by axe, nothing wider than the window; pictures if VIGIL_TEST_SCREENSHOTS names a folder."""
    key, _ = await stack.key()
    paths = await _pages(stack)
    for size, scheme in (("wide", "light"), ("narrow", "dark"), ("wide", "dark"), ("narrow", "light")):
        async with stack.visitor(size, scheme) as visitor:
            visitor.expected = ("404",)
            await visitor.open("/login")
            await visitor.screenshot(f"login-{size}-{scheme}")
            assert await visitor.audit_accessibility() == []
            await visitor.log_in(key)
            await _look(visitor, paths, f"{size}-{scheme}")


async def test_a_link_of_another_site_opens_for_who_is_logged_in(stack: BrowserStack) -> None:
    """The cookie is strict, so the browser sends it only with the page's own reload."""
    key, _ = await stack.key()
    async with stack.visitor() as visitor:
        await visitor.log_in(key)
        await visitor.page.goto("about:blank")
        await visitor.page.set_content(f"<a href='{stack.console.base_url}/console/jobs'>a link in a chat</a>")
        await visitor.page.get_by_role("link").click()
        await expect(visitor.page.get_by_role("heading", name="Jobs")).to_be_visible()


async def test_an_open_page_says_that_its_session_has_ended(stack: BrowserStack) -> None:
    key, _ = await stack.key()
    async with stack.visitor() as visitor:
        visitor.expected = ("401",)
        await visitor.log_in(key)
        await Apps(stack.console.redis, Clock()).revoke(key.id)
        await expect(visitor.page.get_by_text("Your session has ended.")).to_be_visible(timeout=30_000)
        await visitor.page.get_by_role("link", name="Log in again").click()
        await expect(visitor.page.get_by_role("heading", name="Log in")).to_be_visible()
