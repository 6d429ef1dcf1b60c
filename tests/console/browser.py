"""A real Chromium over a whole Vigil: simulator, worker, API, console.

One browser and one loop per process of the tests; each test has a context of its own. What the browser reports as an
error (a violation of the content policy, an exception of the script, a file that is missing) fails the test.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import VAULT
from console_server import Console, serving, submitted
from in_process import SOL, Stage
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from worker.clock import Clock
from worker.settings import Settings
from worker.store.apps import SCOPES, ApiKey
from worker.store.connection.pool import connect

REQUIRED = os.environ.get("VIGIL_TEST_BROWSER") == "required"  # noqa: TID251
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
SCREENSHOTS = os.environ.get("VIGIL_TEST_SCREENSHOTS")  # noqa: TID251
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_AXE_CALL = """async ([rules]) => {
    const found = await axe.run(document, { runOnly: rules, resultTypes: ["violations"] });
    const places = (one) => one.nodes.map((node) => node.target.join(" ")).join("; ");
    return found.violations.map((one) => `${one.id}: ${places(one)}`);
}"""


def chromium() -> str:
    """Return the browser of this machine; skip, or fail where it is required, if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no Chromium here: ops/browser.sh installs Debian's"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    return found


@dataclass
class Visitor:
    """A browser's window on the console. `faults`: what it reported."""

    page: Page
    console: Console
    faults: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of reports that the test provokes."""

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.console.base_url}/console{path}", wait_until="load")

    async def log_in(self, key: ApiKey) -> None:
        """Log in with a one-time link, as a person does."""
        await self.open(f"/login#link={await self.console.link(key)}")
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url("**/console/now*")

    async def audit_accessibility(self) -> list[str]:
        """Return the violations of WCAG A and AA that axe finds on the page."""
        return list(await self.page.evaluate(_AXE_CALL, [_RULES]))

    async def screenshot(self, name: str) -> None:
        """Keep a picture of the page, if the folder for them is set."""
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


@dataclass
class BrowserStack:
    """A running Vigil with its console, and the browser that visits it."""

    browser: Browser
    stage: Stage
    console: Console

    @asynccontextmanager
    async def visitor(self, size: str = "wide", scheme: Any = "light", **options: Any) -> AsyncIterator[Visitor]:
        """Open a window; fail if the browser reports an error in it that the test does not expect."""
        width, height = SIZES[size]
        context = await self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        try:
            await context.add_init_script(path=AXE)
            visitor = Visitor(await context.new_page(), self.console)
            _listen(context, visitor)
            yield visitor
        finally:
            await context.close()
        left = [fault for fault in visitor.faults if not any(part in fault for part in visitor.expected)]
        assert left == []

    async def key(self, scopes: tuple[str, ...] = SCOPES, app: str = "acme") -> tuple[ApiKey, str]:
        """Return a new key of the app, and its text."""
        return await self.console.key(app, scopes)

    async def submit(self, key: str, text: str, **body: Any) -> str:
        """Submit a job over the API and return its id."""
        return await submitted(self.console, key, input=text, model=SOL, **body)


def _listen(context: BrowserContext, visitor: Visitor) -> None:
    page = visitor.page
    page.on("pageerror", lambda error: visitor.faults.append(f"exception: {error}"))
    page.on(
        "console",
        lambda message: visitor.faults.append(f"console: {message.text}") if message.type == "error" else None,
    )
    page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    context.on(
        "request",
        lambda request: (
            visitor.faults.append(f"foreign: {request.url}")
            if not request.url.startswith((visitor.console.base_url, "data:", "blob:"))
            else None
        ),
    )


@asynccontextmanager
async def browser_stack(
    redis: ArqRedis, url: str, browser: Browser, *, worker: bool = True
) -> AsyncIterator[BrowserStack]:
    """Run simulator, API and, unless the test plays it, a worker over this Redis."""
    async with Stage(redis, url) as stage:
        given = Settings(_env_file=None, redis_url=url, OPENAI_BASE_URL=stage.sim.url, OPENAI_API_KEY="sk-stage")
        async with serving(given, redis, Clock()) as console:
            if worker:
                await stage.worker()
            yield BrowserStack(browser, stage, console)


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start the browser."""
    path = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def emptied(url: str) -> AsyncIterator[ArqRedis]:
    """Give a client on an empty database, in the browser's loop."""
    client = connect(url, keyring=VAULT)
    try:
        await client.flushall()
        yield client
    finally:
        await client.aclose()
