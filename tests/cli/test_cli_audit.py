"""`vigil audit` as an auditor uses it: prove, export, prove the export elsewhere, with our command and without it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from vigil_process import Up, one_line, run

from worker.audit.chain import GENESIS, canonical, link
from worker.store import keys
from worker.store.connection.pool import connect

PAGE = Path(__file__).resolve().parents[2] / "ops" / "audit.md"


@pytest.fixture(scope="session")
def audited(up: Up) -> Up:
    """A Vigil in which some jobs have ended and all are sealed."""
    for prompt in ("SECRETPROMPT", "[[sim: refusal]] SECRETPROMPT", "[[sim: block_before_stream]] SECRETPROMPT"):
        up("submit", "--wait", prompt)
    for _ in range(100):
        report = up.json("audit", "verify")
        assert report["ok"], report
        if report["unsealed"] == 0:
            return up
    pytest.fail("the trail is never sealed")


@pytest.fixture
def exported(audited: Up, tmp_path: Path) -> Path:
    out = tmp_path / "trail.ndjson"
    result = audited("audit", "export", "--out", str(out))
    assert result.returncode == 0, result.stderr
    return out


def test_an_unaltered_trail_is_verified(audited: Up) -> None:
    report = audited.json("audit", "verify")
    assert (report["first_bad"], report["checkpoints"] > 0, report["jobs"] >= 3) == (None, True, True)
    assert audited("audit", "verify").stdout.splitlines()[-1].startswith("ok: nothing was altered")


def test_a_planted_key_is_named_by_every_command_that_looks(audited: Up) -> None:
    report = audited.json("audit", "verify", "--records")
    assert (report["ok"], report["compared"]["jobs"] >= 3, report["compared"]["api_keys"] >= 1) == (True, True, True)
    assert audited.json("keys", "list")["refused"] == []
    record = {"id": "key_planted", "app": "local", "scopes": ["ops"], "created_at": 1, "last4": "abcd", "revoked_at": 0}
    name = keys.api_key("f" * 64)
    address = f"unix://{audited.folder / '.vigil' / 'valkey.sock'}"

    async def write(*command: str) -> None:
        redis = connect(address)
        await redis.execute_command(*command)
        await redis.aclose()

    asyncio.run(write("SET", name, json.dumps(record)))
    try:
        found = audited("audit", "verify", "--records")
        assert (found.returncode, "key_planted" in found.stdout) == (1, True), found.stdout
        assert audited("audit", "verify").returncode == 0, "the trail itself was not touched"
        (refused,) = audited.json("keys", "list")["refused"]
        assert (refused["id"], refused["why"]) == ("key_planted", "no_mac")
        assert "REFUSED: key key_planted of app local" in audited("keys", "list").stdout
        checks = json.loads(audited("doctor", "--json").stdout)["checks"]
        assert [one["state"] for one in checks if one["name"] == "seals"] == ["problem"]
    finally:
        asyncio.run(write("DEL", name))
    assert "done" in audited("store", "seal").stdout
    assert audited("audit", "verify", "--records", "--file", "x").returncode == 2


def test_an_export_is_proven_where_there_is_no_vigil(audited: Up, exported: Path, tmp_path: Path) -> None:
    key = audited("audit", "key").stdout.strip()
    result = run(tmp_path, "audit", "verify", "--file", str(exported), "--key", key, "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["ok"], report["notes"]) == (0, True, [])
    assert report["records"] == len(exported.read_bytes().splitlines())
    assert b"SECRETPROMPT" not in exported.read_bytes()
    unpinned = run(tmp_path, "audit", "verify", "--file", str(exported))
    assert "--key pins them" in unpinned.stdout
    stranger = run(tmp_path, "audit", "verify", "--file", str(exported), "--key", "A" * 43)
    assert stranger.returncode == 1
    assert "not a trusted key" in stranger.stdout


def test_the_lines_of_the_page_prove_an_export(audited: Up, exported: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert script.count("\n") < 40
    words = [sys.executable, "-W", "ignore", "-c", script, str(exported), audited("audit", "key").stdout.strip()]
    good = subprocess.run(words, capture_output=True, text=True, check=False)
    assert good.stdout.startswith("ok: "), good.stderr
    exported.write_bytes(exported.read_bytes().replace(b'"app":"local"', b'"app":"lokal"', 1))
    bad = subprocess.run(words, capture_output=True, text=True, check=False)
    assert re.search(r"line \d+ does not follow", bad.stderr)


def shorten(lines: list[bytes], audited: dict) -> list[bytes]:
    return lines[:-1]


def change(lines: list[bytes], audited: dict) -> list[bytes]:
    return [line.replace(b'"job.started"', b'"job.stopped"') for line in lines]


def take_out(lines: list[bytes], audited: dict) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def add(lines: list[bytes], audited: dict) -> list[bytes]:
    return [*lines, lines[-1].replace(b"0", b"1")]


def swap(lines: list[bytes], audited: dict) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def blur(lines: list[bytes], audited: dict) -> list[bytes]:
    return [json.dumps(json.loads(lines[0])).encode(), *lines[1:]]


def forge(lines: list[bytes], audited: dict) -> list[bytes]:
    audited["checkpoints"][0]["at"] = "2020-01-01T00:00:00.000Z"
    return lines


@pytest.mark.parametrize("tamper", [shorten, change, take_out, add, swap, blur, forge], ids=lambda f: f.__name__)
def test_an_export_that_was_tampered_with_is_not_proven(audited: Up, exported: Path, tmp_path: Path, tamper) -> None:
    beside = exported.with_name(exported.name + ".manifest.json")
    manifest = json.loads(beside.read_bytes())
    exported.write_bytes(b"".join(line + b"\n" for line in tamper(exported.read_bytes().splitlines(), manifest)))
    beside.write_bytes(canonical(manifest))
    result = run(tmp_path, "audit", "verify", "--file", str(exported), "--key", audited("audit", "key").stdout.strip())
    assert result.returncode == 1, result.stdout
    assert "BAD: " in result.stdout


def test_an_export_of_one_app_proves_its_chains_and_says_what_it_does_not(audited: Up, tmp_path: Path) -> None:
    out = tmp_path / "app.ndjson"
    assert audited("audit", "export", "--out", str(out), "--app", "local").returncode == 0
    key = audited("audit", "key").stdout.strip()
    report = json.loads(run(tmp_path, "audit", "verify", "--file", str(out), "--key", key, "--json").stdout)
    assert report["ok"]
    assert "no job was left out" in report["notes"][0]
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert run(tmp_path, "audit", "verify", "--file", str(out), "--key", key).returncode == 1
    nobody = tmp_path / "nobody.ndjson"
    assert audited("audit", "export", "--out", str(nobody), "--app", "nobody").returncode == 0
    assert nobody.read_bytes() == b""


def test_an_export_of_some_time_is_proven(audited: Up, exported: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in exported.read_bytes().splitlines()]
    middle = rows[len(rows) // 2]["record"]["at"]
    key = audited("audit", "key").stdout.strip()
    for option in ("--after", "--before"):
        out = tmp_path / "some.ndjson"
        assert audited("audit", "export", "--out", str(out), option, middle).returncode == 0
        assert 0 < len(out.read_bytes().splitlines()) < len(rows)
        result = run(tmp_path, "audit", "verify", "--file", str(out), "--key", key, "--json")
        assert json.loads(result.stdout)["ok"], result.stdout


def test_one_job_is_shown_and_a_prompt_proves_to_be_the_submitted_one(audited: Up, tmp_path: Path) -> None:
    done = audited.json("submit", "--wait", "A short prompt")
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("A short prompt\n")
    shown = audited("audit", "show", done["id"], "--prompt-file", str(prompt))
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["SEQ", "AT", "EVENT", "ATTEMPT", "WHAT"]
    assert "app local" in lines[1]
    assert lines[-2:] == ["every hash follows from the one before", "the prompt is the submitted one"]
    assert "short prompt" not in shown.stdout
    prompt.write_text("Another prompt")
    wrong = audited("audit", "show", done["id"], "--prompt-file", str(prompt), "--json")
    assert (wrong.returncode, json.loads(wrong.stdout)["prompt_matches"]) == (1, False)
    prompt.write_text(
        json.dumps({"model": done["requested_model"], "input": "A short prompt", "params": {"stream": True}})
    )
    with_prompt = audited.json("audit", "show", done["id"], "--prompt-file", str(prompt))
    assert (with_prompt["prompt_matches"], with_prompt["chain_ok"]) == (True, True)
    assert with_prompt["data"][-1]["type"] == "job.completed"
    nobody = audited("audit", "show", "job_nobody")
    assert (nobody.returncode, one_line(nobody)) == (1, "vigil: there is no audit trail of job_nobody")


def test_a_hold_is_placed_listed_and_released(audited: Up) -> None:
    job_id = audited.json("submit", "--wait", "Hold me")["id"]
    assert audited("audit", "hold", job_id, "--reason", "case 7", "--by", "dana").returncode == 0
    (row,) = audited.json("audit", "holds")["data"]
    assert (row["name"], row["by"], row["reason"]) == (job_id, "dana", "case 7")
    assert job_id in audited("audit", "holds").stdout
    again = audited("audit", "hold", job_id, "--reason", "x")
    assert "is held already" in one_line(again)
    assert audited("audit", "release", job_id, "--reason", "closed").returncode == 0
    assert audited("audit", "holds").stdout == "There are no legal holds.\n"
    shown = audited("audit", "show", job_id).stdout
    assert "dana · case 7" in shown
    both = audited("audit", "hold", job_id, "--app", "x", "--reason", "y")
    assert (both.returncode, one_line(both)) == (2, "vigil: give either a job or --app")


def test_an_export_to_stdout_is_lines_alone(audited: Up) -> None:
    result = audited("audit", "export")
    assert all(json.loads(line)["record"]["type"] for line in result.stdout.splitlines())


def test_lab_reads_an_export(audited: Up, exported: Path) -> None:
    assert audited("lab", "--trail", str(exported)).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("verify", "--key", "x"), "--key must be a public key"),
        (("verify", "--file", "nothing"), "nothing can't be read"),
        (("verify", "--checkpoints", "nothing"), "nothing can't be read"),
        (("export", "--after", "soon"), "--after takes a time"),
        (("verify", "--file", "."), ". can't be read"),
        (("verify", "--file", "x", "--manifest", "nothing"), "nothing can't be read"),
        (("export", "--before", "2026-13-01"), "--before takes a time"),
        (("export", "--out", "no/where"), "no/where can't be written"),
        (("export", "--out", "x", "--manifest", "no/where"), "no/where can't be written"),
        (("show", "job_x", "--prompt-file", "nothing"), "nothing"),
        (("hold", "--reason", "x"), "give either a job or --app"),
    ],
)
def test_wrong_usage_is_one_line(audited: Up, words: tuple[str, ...], message: str) -> None:
    result = audited("audit", *words)
    assert result.returncode == 2
    assert message in one_line(result)


def test_what_is_no_export_is_one_line(audited: Up, tmp_path: Path) -> None:
    trail, beside = tmp_path / "t.ndjson", tmp_path / "t.ndjson.manifest.json"
    trail.write_text("")
    for broken in ("{broken", "[]", '{"format": "other-1"}', '{"format": "vigil-audit-1"}'):
        beside.write_text(broken)
        result = audited("audit", "verify", "--file", str(trail))
        assert (result.returncode, str(beside) in one_line(result)) == (1, True)
    copy = tmp_path / "copy.ndjson"
    copy.write_text("nonsense\n")
    result = audited("audit", "verify", "--checkpoints", str(copy))
    assert (result.returncode, result.stderr) == (1, "")
    assert "BAD: checkpoint: in the shipped copy: " in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("export", "--out", "trail.ndjson"),
        ("show", "job_x"),
        ("hold", "job_x", "--reason", "y"),
        ("release", "job_x", "--reason", "y"),
        ("holds",),
    ],
    ids=lambda words: words[0],
)
def test_without_redis_it_is_one_line_and_nothing_is_overwritten(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "trail.ndjson").write_text("an earlier export\n")
    result = run(tmp_path, "audit", *words, VIGIL_REDIS_URL="redis://127.0.0.1:1/0")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Redis could not" in one_line(result)
    assert (tmp_path / "trail.ndjson").read_text() == "an earlier export\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "job_x"), 1, "there is no audit trail of job_x"),
        (("hold", "job_x", "--reason", "y"), 2, "There is no audit trail of job_x."),
        (("release", "job_x", "--reason", "y"), 2, "job_x is not held."),
    ],
    ids=["show", "hold", "release"],
)
def test_an_unknown_job_is_one_line(audited: Up, words: tuple[str, ...], code: int, message: str) -> None:
    result = audited("audit", *words)
    assert (result.returncode, one_line(result)) == (code, f"vigil: {message}")


def test_a_report_on_a_narrow_terminal_is_complete(audited: Up) -> None:
    wide, narrow = (audited("audit", "verify", COLUMNS=width).stdout.splitlines() for width in ("200", "40"))
    assert narrow[-1] == wide[-1]
    assert all("\x1b" not in line for line in narrow)


def test_old_records_without_a_checkpoint_are_reported_and_may_be_allowed(tmp_path: Path, valkey_url: str) -> None:
    async def tell() -> None:
        redis = connect(valkey_url)
        await redis.flushall()
        hashed, body = link(GENESIS, {"app": "a", "job_id": None, "seq": None, "type": "audit.hold"})
        await redis.xadd(keys.AUDIT, {"hash": hashed, "record": body}, id="1700000000000-0")
        await redis.aclose()

    asyncio.run(tell())
    env = {"VIGIL_REDIS_URL": valkey_url, "VIGIL_AUDIT_KEY": "A" * 43}
    result = run(tmp_path, "audit", "verify", **env)
    assert result.returncode == 1
    assert "BAD: checkpoint: missing checkpoints: none covers the last 1 records" in result.stdout
    assert run(tmp_path, "audit", "verify", "--allow-unsealed", **env).returncode == 0
    assert run(tmp_path, "audit", "verify", VIGIL_REDIS_URL=valkey_url).returncode == 0, "no key to check any by"


def test_without_a_key_it_says_how_to_get_one(tmp_path: Path) -> None:
    result = run(tmp_path, "audit", "key")
    assert result.returncode == 1
    assert "VIGIL_AUDIT_KEY" in one_line(result)
