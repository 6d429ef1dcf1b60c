"""A Vigil with two accounts at two simulators: `default`, and `research`, which serves the app `lab` and LUNA."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from arq.connections import ArqRedis
from full_stack import FullStack, full_stack
from in_process import LIMIT, LUNA
from pydantic import SecretStr

from worker.clock import Clock
from worker.simulator import Simulator
from worker.store.apps import SCOPES, Apps

RESEARCH_KEY = "sk-research-CANARY"
RESEARCH_WEBHOOK = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
SECRETS = {
    "VIGIL_ACCOUNT_RESEARCH_API_KEY": SecretStr(RESEARCH_KEY),
    "VIGIL_ACCOUNT_RESEARCH_WEBHOOK_SECRET": SecretStr(RESEARCH_WEBHOOK),
}


def accounts_file(folder: Path, base_url: str, more: str = "") -> Path:
    """Write an accounts file with the account `research` at this address, bound to the app `lab` and to LUNA."""
    path = folder / "accounts.toml"
    path.write_text(
        f"""[accounts.research]
organization = "org-research"
project = "proj_research"
base_url = "{base_url}"
{more}

[apps]
lab = "research"

[models]
"{LUNA}" = "research"
"""
    )
    return path


@dataclass
class TwoAccounts:
    """`running`: the API, the workers' stage and the app `acme`; `research`: the other provider; `lab`: its app."""

    running: FullStack
    research: Simulator
    lab: httpx2.AsyncClient
    lab_key: str
    file: Path


@asynccontextmanager
async def two_accounts(
    folder: Path, redis: ArqRedis, url: str, *, more: str = "", **settings: Any
) -> AsyncIterator[TwoAccounts]:
    """Run them, without a worker."""
    research = Simulator(speed=settings.get("speed", 20.0))
    await research.start()
    try:
        given = {**settings, "accounts_file": accounts_file(folder, research.url, more), "account_secrets": SECRETS}
        async with full_stack(redis, url, **given) as running:
            key = (await Apps(redis, Clock()).create_key("lab", SCOPES))[1]
            base, headers = str(running.app.base_url), {"Authorization": f"Bearer {key}"}
            async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=LIMIT, trust_env=False) as lab:
                yield TwoAccounts(running, research, lab, key, given["accounts_file"])
    finally:
        research.set_speed(1e6)
        await research.stop()
