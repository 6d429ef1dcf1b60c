"""The example in the README runs word for word, with the installed client against a complete Vigil."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from in_process import Stage
from installed_client import InstalledClient

from worker.client import AsyncVigil, Vigil

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "README.md").read_text().partition("## From Python")[2].partition("\n## ")[0]


@pytest.mark.parametrize("checked", [False, True])
async def test_the_example_in_the_readme_runs(
    api: Any, redis: ArqRedis, valkey_url: str, installed: InstalledClient, checked: bool
):
    (example,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    assert "from vigil import" in example
    if checked:  # so that there is a safety check to print
        example = example.replace("Why is", "[[sim: check_then_clear hold=4]] Why is")
    async with Stage(redis, valkey_url, speed=20) as stage:
        await stage.worker()
        process = await installed.python(example, VIGIL_URL=api.base_url, VIGIL_API_KEY=await api.key())
        out, error = (text.decode() for text in await process.communicate())
    assert (process.returncode, error) == (0, "")
    assert re.search(r"\w+ \w+.*completed gpt-5\.6-sol 0\.\d+\n$", out, re.DOTALL)
    assert ("a safety check runs: signalled" in out) == checked


def test_every_method_in_the_readme_is_one_of_both_clients():
    names = re.findall(r"`(\w+)`", SECTION.partition("to await:")[2].partition("for every")[0])
    assert len(names) > 10
    for name in names:
        assert callable(getattr(Vigil, name))
        assert callable(getattr(AsyncVigil, name))


def test_the_readme_shows_how_to_install_the_client():
    assert "pip install ./worker/client" in SECTION
    assert (ROOT / "worker" / "client" / "pyproject.toml").is_file()


def test_the_methods_in_the_clients_own_readme_are_all():
    table = (ROOT / "worker" / "client" / "README.md").read_text().partition("| method")[2]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    public = {name for name, value in vars(Vigil).items() if callable(value) and not name.startswith("_")}
    assert named == public - {"close"}
