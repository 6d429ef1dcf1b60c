"""`vigil-client`: what the distribution holds, and that it works where nothing else of Vigil is installed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from installed_client import ROOT, SOURCE, InstalledClient, copy_of_the_source, required_by
from packaging.requirements import Requirement
from waiting import LIMIT

NOT_NEEDED = (
    "worker",
    "api",
    "arq",
    "redis",
    "openai",
    "fastapi",
    "aiohttp",
    "pydantic_settings",
    "typer",
    "sentry_sdk",
)

START = f"""
import importlib.util
for name in {NOT_NEEDED!r}:
    assert importlib.util.find_spec(name) is None, name
"""

BLOCKING = """
from vigil import Vigil

with Vigil() as vigil:
    job = vigil.submit(model="gpt-5.6-sol", input="Why is the sky blue?")
    print(job.id, flush=True)
    for event in vigil.events(job.id):
        print(event.type, event.delta or "")
    job = vigil.wait(job.id, timeout=60)
    print(job.status, job.output_text, job.cost.total)
"""

ASYNCIO = """
import asyncio
from vigil import AsyncVigil, OnDelay, Policy

async def main():
    async with AsyncVigil() as vigil:
        policy = Policy(on_delay=OnDelay(action="wait"))
        job = await vigil.submit(model="gpt-5.6-sol", input="Why is the sky blue?", policy=policy)
        print(job.id, flush=True)
        async for event in vigil.events(job.id):
            print(event.type, event.delta or "")
        job = await vigil.wait(job.id, timeout=60)
        print(job.status, job.output_text, job.cost.total)

asyncio.run(main())
"""


@pytest.mark.parametrize("script", [BLOCKING, ASYNCIO], ids=["Vigil", "AsyncVigil"])
async def test_the_installed_client_submits_streams_and_waits(
    installed: InstalledClient, api: Any, worker: Any, script: str
):
    process = await installed.python(START + script, VIGIL_URL=api.base_url, VIGIL_API_KEY=await api.key())
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        job_id = (await process.stdout.readline()).decode().strip()
        if job_id:
            await worker.start(job_id)
            await worker.text(job_id, 1, 0, "Because.")
            await worker.complete(job_id, "Because.")
        out, error = await process.communicate()
    assert (process.returncode, error.decode()) == (0, "")
    lines = out.decode().splitlines()
    assert "job.output.delta Because." in lines
    assert lines[-2:] == ["job.completed ", "completed Because. 0.012300"]


def test_it_requires_httpx2_and_pydantic_alone(installed: InstalledClient):
    (package,) = metadata.distributions(path=[str(installed.site)])
    assert {Requirement(line).name for line in package.requires or ()} == {"httpx2", "pydantic"}
    http = {"httpx2", "httpcore2", "h11", "anyio", "idna", "truststore", "typing-extensions"}
    models = {"pydantic", "pydantic-core", "annotated-types", "typing-inspection"}
    assert required_by(package) == http | models


def test_it_has_the_version_and_the_ranges_of_vigil():
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    its = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    assert its["version"] == ours["version"]
    assert its["requires-python"] == ours["requires-python"]
    assert set(its["dependencies"]) <= set(ours["dependencies"])


def test_the_wheel_has_every_module_and_its_types(installed: InstalledClient):
    names = {name for name in ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"vigil/{path.name}" for path in SOURCE.glob("*.py")} | {"vigil/py.typed"}


def test_the_source_distribution_builds_the_same_wheel(installed: InstalledClient, tmp_path: Path):
    source = copy_of_the_source(tmp_path / "source")
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since Python 3.11.4
        files.extractall(tmp_path, **safely)  # noqa: S202
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", build], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert _contents(wheel) == _contents(installed.wheel)


def _contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as files:
        return {name: files.read(name) for name in files.namelist() if not name.endswith("RECORD")}
