"""A Redis that lets us in and not do everything: what is missing is named by log, `/readyz` and doctor, and nothing is
taken until it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from deployment import Deployment, wait_for
from ops_server import Server, free_port, secrets, server

from worker.store.connection.required_commands import REQUIRED, Role

EVERYTHING = "on >pw ~* &* +@all"
MISSING = {
    "resetchannels": ["&vigil:*"],
    "-multi": ["+multi"],
    "-publish": ["+publish"],
    "resetkeys ~vigil:*": ["~arq:*"],
}
EVERY_RULE = {rule for lacking in MISSING.values() for rule in lacking}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("rights")) as one:
        yield one


def grant(own: Server, rules: str) -> None:
    own.client().execute_command("ACL", "SETUSER", "vig", "reset", *EVERYTHING.split(), *rules.split())


def deployment(own: Server, folder: Path) -> Deployment:
    url = f"redis://vig:pw@{own.place}/0"
    return Deployment(folder, {"api": url, "worker": url}, {"VIGIL_WORKER_PORT": str(free_port())})


def ready(port: int | str) -> tuple[int, str]:
    try:
        answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
    except httpx2.HTTPError:
        return 0, ""
    return answer.status_code, answer.text


def refusal(port: int | str, lacking: list[str]) -> str:
    """Return why the process is not ready, or "" if it is, or does not name all that is lacking."""
    status, reason = ready(port)
    return reason if status == 503 and all(rule in reason for rule in lacking) else ""


def logged(folder: Path, process: str, event: str) -> list[dict[str, object]]:
    lines = (folder / f"{process}.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [row for row in found if row.get("event") == event]


def test_what_is_missing_at_start_is_named_everywhere_and_waited_for(own: Server, tmp_path: Path) -> None:
    grant(own, "-@scripting resetchannels -time -info")
    expected = ["+evalsha", "+script|load", "&vigil:*", "+time", "+info"]
    vigil = deployment(own, tmp_path)
    places = {"api": vigil.port, "worker": vigil.settings["VIGIL_WORKER_PORT"]}
    with vigil.process("api", "api"), vigil.process("worker", "worker"):
        for name, port in places.items():
            wait_for(f"{name} to say so", lambda name=name: logged(tmp_path, name, "store.away"))
            away = logged(tmp_path, name, "store.away")
            assert all(rule in str(away[0]["reason"]) for rule in expected)
            assert len(away) == 1
            status, reason = wait_for(f"{name} to answer", lambda port=port: ready(port)[0] and ready(port))
            assert status == 503
            assert all(rule in reason for rule in expected), reason
        doctor = json.loads(vigil.vigil("api", "doctor", "--json").stdout)
        found = next(check for check in doctor["checks"] if check["name"] == "commands")
        assert found["state"] == "problem"
        assert all(rule in found["detail"] for rule in expected), found
        grant(own, "")
        for name, port in places.items():
            wait_for(f"{name} to be ready", lambda port=port: ready(port)[0] == 200)
            assert logged(tmp_path, name, "store.back")
        for rules, lacking in MISSING.items():
            grant(own, rules)
            for port in places.values():
                reason = wait_for(f"{rules} to be noticed", lambda port=port, lacking=lacking: refusal(port, lacking))
                assert not any(rule in reason for rule in EVERY_RULE - {*lacking}), reason
        grant(own, "")
        for port in places.values():
            wait_for("the rights to be back", lambda port=port: ready(port)[0] == 200)


def test_nothing_is_taken_while_a_script_would_stop_half_way(own: Server, tmp_path: Path) -> None:
    grant(own, "")
    vigil = deployment(own, tmp_path)
    made = vigil.vigil("api", "keys", "create", "--app", "a", "--scope", "submit", "--scope", "read", "--json")
    headers = {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    grant(own, "-publish")
    with vigil.process("api", "api"):
        wait_for("the API", lambda: ready(vigil.port)[0])
        submit = {"model": "gpt-5.6-sol", "input": "x"}
        answer = httpx2.post(f"{vigil.url}/v1/jobs", json=submit, headers=headers)
        assert answer.status_code == 503
        assert own.client().keys("vigil:job:*") == []


def test_a_wrong_password_is_said_at_once_by_every_process(own: Server, tmp_path: Path) -> None:
    grant(own, "")
    url = f"redis://vig:not-it@{own.place}/0"
    vigil = Deployment(tmp_path, {"api": url})
    for words in (["api"], ["worker"], ["keys", "list"], ["up"], ["audit", "verify"]):
        result = vigil.vigil("api", *words)
        lines = [line for line in result.stderr.splitlines() if line.startswith("vigil")]
        assert result.returncode == 2, (words, result.stderr)
        assert len(lines) == 1
        assert "does not accept the user or password of VIGIL_REDIS_URL" in lines[0]
        assert "not-it" not in result.stderr + result.stdout


def test_an_api_that_waits_for_redis_says_what_it_waits_for(tmp_path: Path) -> None:
    vigil = Deployment(tmp_path, {"api": f"redis://127.0.0.1:{free_port()}/0"})
    with vigil.process("api", "api"):
        status, reason = wait_for("the API", lambda: ready(vigil.port) if ready(vigil.port)[0] else None)
        assert status == 503
        assert "can't be reached" in reason
        away = wait_for("the log", lambda: logged(tmp_path, "api", "store.away"))
        assert "can't be reached" in str(away[0]["reason"])


@pytest.mark.parametrize("role", ["api", "worker"])
def test_the_shipped_rules_allow_all_that_is_in_the_list(tmp_path: Path, role: Role) -> None:
    made = secrets(tmp_path / "secrets", "valkey:6379")
    with server(tmp_path / "data", "--aclfile", str(tmp_path / "secrets" / "users.acl")) as one:
        admin = one.client("admin", made["valkey_password_admin"])
        refused = {words: admin.execute_command("ACL", "DRYRUN", role, *words) for words in REQUIRED[role]}
        assert {words: reply for words, reply in refused.items() if reply != "OK"} == {}
