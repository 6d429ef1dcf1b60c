"""The example in the README runs word for word, against a whole Vigil."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from in_process import Stage

README = Path(__file__).resolve().parents[2] / "README.md"


async def test_the_example_in_the_readme_runs(
    api: Any, redis: ArqRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    section = README.read_text().partition("## From Python")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.setenv("VIGIL_URL", api.base_url)
    monkeypatch.setenv("VIGIL_API_KEY", await api.key())
    checked = example.replace("Why is", "[[sim: check_then_clear hold=4]] Why is")  # so that there is something to see
    async with Stage(redis, valkey_url, speed=20) as stage:
        await stage.worker()
        for code in (example, checked):
            await asyncio.to_thread(exec, compile(code, "README.md", "exec"), {})
            said = capsys.readouterr().out
            assert re.search(r"\w+ \w+.*completed gpt-5\.6-sol 0\.\d+\n$", said, re.DOTALL)
            assert ("a safety check runs: signalled" in said) == (code is checked)
        for method in re.findall(r"`(\w+)`", section.partition("to await:")[2].partition("for every")[0]):
            from worker.client import AsyncVigil, Vigil

            assert callable(getattr(Vigil, method))
            assert callable(getattr(AsyncVigil, method))
