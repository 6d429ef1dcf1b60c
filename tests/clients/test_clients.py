"""The client that is here anyway, OpenAI's SDK, in all its modes; and what the runner says of the others."""

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path

import httpx2
import pytest
import run
from full_stack import full_stack
from waiting import LIMIT

HERE = Path(__file__).parent


async def test_every_feature_of_openai_python_works(redis, valkey_url, tmp_path):
    async with full_stack(redis, valkey_url, speed=500) as running:
        await running.stage.worker()
        url, key = str(running.app.base_url), running.app.headers["Authorization"].removeprefix("Bearer ")
        with httpx2.Client(base_url=url, headers=running.app.headers, timeout=LIMIT) as client:
            missing = [*await asyncio.to_thread(run.missing_parts, client), "time"]  # `make test-clients` has it
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "openai-python" / "check.py"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],  # noqa: TID251
                "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
                "VIGIL_URL": url,
                "VIGIL_API_KEY": key,
                "VIGIL_MISSING": ",".join(missing),
            },
        )  # fmt: skip
        out, err = await process.communicate()
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) > 12, err.decode()
    failed = [row for row in rows if row["result"] not in {"pass", *(f"needs {part}" for part in missing)}]
    assert not failed, err.decode()


def test_every_client_has_a_lock_with_versions_and_without_addresses():
    names = [folder.name for folder in HERE.iterdir() if any(folder.glob("check.*"))]
    assert sorted(names) == run.clients()
    for name in names:
        lock = next(path for path in (run.source_of(name) / lock for lock in run.LOCKS) if path.exists())
        assert "://" not in lock.read_text()
        if lock.name == "requirements.lock":
            assert all("==" in line for line in lock.read_text().splitlines())
        assert run.version_of(name)[0].isdigit()


def test_a_client_that_cannot_be_installed_is_skipped_with_the_reason(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "TOOLS", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert run.main(["openai-node"]) == 0
    assert "npm is not installed" in capsys.readouterr().out
    assert run.main(["no-such-client"]) == 2


@pytest.mark.parametrize(("results", "status"), [(["pass", "needs chat"], 0), (["pass", "fail"], 1)])
def test_a_failed_feature_fails_the_run(monkeypatch, tmp_path, capsys, results, status):
    monkeypatch.setattr(run, "install", lambda _: tmp_path)
    monkeypatch.setattr(run, "check", lambda *_: [{"feature": "f", "result": result} for result in results])
    assert run.main(["openai-python"]) == status
    assert ("FAILED" in capsys.readouterr().out) == bool(status)


def test_the_types_of_the_typescript_client_are_those_of_the_document():
    spec = importlib.util.spec_from_file_location("generate_types", run.OWN["typescript"] / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    made_from = generate.SCHEMA.read_text().partition("\n")[0]
    assert made_from == generate.head(generate.document()), "the API has changed: run `make typescript`"
