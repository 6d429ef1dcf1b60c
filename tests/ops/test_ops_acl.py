"""ops/users.acl against a real Valkey and a whole Vigil: nothing it needs is refused, and nothing else is granted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from deployment import Deployment, deployed
from openai import OpenAI
from ops_server import Server, secrets, server
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from waiting import next_week

from worker.store.connection.required_commands import OPTIONAL, Role, names


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("acl")
    made = secrets(folder / "secrets", "valkey:6379")
    with server(folder / "data", "--aclfile", str(folder / "secrets" / "users.acl")) as one:
        yield one, made


def as_user(given: tuple[Server, dict[str, str]], name: str):
    one, made = given
    return one.client(name, made[f"valkey_password_{name}"])


@pytest.fixture(scope="module")
def vigil(given: tuple[Server, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    one, made = given
    as_user(given, "admin").execute_command("ACL", "LOG", "RESET")
    urls = {role: made[f"redis_url_{role}"].replace("valkey:6379", one.place) for role in ("api", "worker")}
    with deployed(tmp_path_factory.mktemp("vigil"), urls) as all_of_it:
        yield all_of_it


def work(vigil: Deployment) -> None:
    """A job of each kind, and each door of the API."""
    endpoint = {"url": f"http://127.0.0.1:{vigil.sim_port}/nowhere", "events": ["job.completed"], "payload": "thin"}
    made = vigil.http.post("/v1/webhook-endpoints", json=endpoint).json()
    hook = {"webhook": {"url": endpoint["url"], "events": ["job.completed"]}}
    ids = [
        vigil.submit("[[sim: normal]] hello", end_user="u1", metadata={"a": "b"}, **hook),
        vigil.submit(
            "[[sim: check_then_clear hold=5]] hello", policy={"on_delay": {"action": "race", "after_seconds": 0}}
        ),
        vigil.submit("[[sim: check_then_block hold=1]] hello", end_user="u2"),
        vigil.submit("[[sim: model_not_found]] hello"),
        vigil.submit("[[sim: server_error times=1]] hello"),
        vigil.submit("later", not_before=next_week()),
    ]
    batch = vigil.http.post("/v1/jobs/batch", json={"jobs": [{"model": "gpt-5.6-sol", "input": "x"}] * 3})
    assert batch.status_code == 200, batch.text
    assert vigil.http.post(f"/v1/jobs/{ids[-1]}/cancel").status_code == 200
    ends = [vigil.settled(job_id)["status"] for job_id in ids]
    assert ends == ["completed", "completed", "blocked", "failed", "completed", "cancelled"]
    again = {"json": {"model": "gpt-5.6-sol", "input": "x"}, "headers": {"Idempotency-Key": "k"}}
    assert [vigil.http.post("/v1/jobs", **again).status_code for _ in range(2)] == [202, 202]
    for path in (f"/v1/jobs/{ids[0]}/deliveries", "/v1/jobs?end_user=u1", "/v1/models", "/v1/status"):
        vigil.get(path)
    with vigil.http.stream("GET", f"/v1/jobs/{ids[1]}/events") as events:
        assert "job.completed" in "".join(events.iter_text())
    token = vigil.http.post(f"/v1/jobs/{ids[0]}/token").json()["token"]
    assert httpx2.get(f"{vigil.url}/v1/jobs/{ids[0]}", params={"token": token}, trust_env=False).status_code == 200
    assert vigil.http.post("/v1/models/probe", json={}).status_code == 200
    key = vigil.http.headers["Authorization"].removeprefix("Bearer ")
    with OpenAI(base_url=f"{vigil.url}/v1", api_key=key) as client:
        with client.responses.create(model="gpt-5.6-sol", input="hello", stream=True) as stream:
            assert [event.type for event in stream][-1] == "response.completed"
        client.responses.delete(client.responses.create(model="gpt-5.6-sol", input="hello", background=True).id)
    assert vigil.http.delete(f"/v1/webhook-endpoints/{made['id']}").status_code in {200, 204}
    for words in (["keys", "list", "--json"], ["keys", "create", "--app", "other"]):
        assert vigil.vigil("api", *words).returncode == 0


def test_a_whole_vigil_runs_as_its_users_and_nothing_is_refused(given, vigil: Deployment) -> None:
    work(vigil)
    refused = as_user(given, "admin").execute_command("ACL", "LOG", "50")
    assert {(row["username"], row["object"], row["reason"]) for row in refused} <= {
        ("api", "config|get", "command")  # asked once at the start; a managed Redis refuses it as well
    }
    names = {row["user"] for row in as_user(given, "admin").client_list()}
    assert {"api", "worker"} <= names
    report = vigil.vigil("worker", "doctor", "--json", VIGIL_URL=vigil.url)
    assert "every write is on disk before the answer" in report.stdout


REFUSED = r"(?i)\bpermissions?\b"
FORBIDDEN = [
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET maxmemory-policy allkeys-lru", "CONFIG SET appendonly no",
    "ACL LIST", "ACL SETUSER eve on nopass +@all", "SHUTDOWN NOSAVE", "SAVE", "BGREWRITEAOF",
    "REPLICAOF 127.0.0.1 1", "MONITOR", "CLIENT KILL ID 1", "SCRIPT FLUSH", "FUNCTION FLUSH", "SWAPDB 0 1",
    "GET other:key", "SET other:key 1", "RENAME vigil:workers other:key", "PUBLISH other x", "SUBSCRIBE other",
    "EVAL return(redis.call('flushall')) 0", "EVAL return(redis.call('get','other')) 0", "MODULE LIST", "FAILOVER",
]  # fmt: skip


ON_THE_TRAIL = [
    "DEL vigil:audit", "UNLINK vigil:audit", "XDEL vigil:audit 1-1", "XTRIM vigil:audit MAXLEN 0", "SET vigil:audit x",
    "EXPIRE vigil:audit 1", "RENAME vigil:audit vigil:other", "RENAME vigil:other vigil:audit",
    "XSETID vigil:audit 9-9", "EVAL return(redis.call('del',KEYS[1])) 1 vigil:audit",
    "DEL vigil:seals", "RPUSH vigil:seals x", "LSET vigil:seals 0 x", "LTRIM vigil:seals 1 0", "LPOP vigil:seals",
    "RENAME vigil:other vigil:seals", "EVAL return(redis.call('rpush',KEYS[1],'x')) 1 vigil:seals",
]  # fmt: skip


@pytest.mark.parametrize("command", [*FORBIDDEN, *ON_THE_TRAIL, "CONFIG GET appendfsync"])
def test_the_api_may_not(given, command: str) -> None:
    with pytest.raises((NoPermissionError, ResponseError), match=REFUSED):
        as_user(given, "api").execute_command(*command.split())


@pytest.mark.parametrize("command", FORBIDDEN)
def test_the_worker_may_not(given, command: str) -> None:
    with pytest.raises((NoPermissionError, ResponseError), match=REFUSED):
        as_user(given, "worker").execute_command(*command.split())


@pytest.mark.parametrize(
    "command", [*FORBIDDEN, "GET vigil:app:ops", "HGETALL vigil:job:x", "ZADD vigil:ready 1 x", "EVAL return(1) 0"]
)
def test_metrics_may_count_and_nothing_else(given, command: str) -> None:
    with pytest.raises((NoPermissionError, ResponseError), match=REFUSED):
        as_user(given, "metrics").execute_command(*command.split())


def test_metrics_may_count(given) -> None:
    client = as_user(given, "metrics")
    assert client.zcard("vigil:ready") >= 0
    assert client.info("persistence")["aof_enabled"] == 1
    assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_nobody_is_anybody_without_a_name(given) -> None:
    one, _ = given
    for user, password in ((None, None), ("api", "wrong"), ("default", "")):
        with pytest.raises((AuthenticationError, NoPermissionError, ResponseError)):
            one.client(user, password).get("vigil:workers")
    assert one.client("health", "-").execute_command("PING")
    with pytest.raises(NoPermissionError):
        one.client("health", "-").info()


def test_secrets_are_kept_and_the_rules_are_renewed(tmp_path: Path) -> None:
    first = secrets(tmp_path / "s", "valkey:6379")
    (tmp_path / "s" / "openai_api_key").write_text("sk-mine\n")
    (tmp_path / "s" / "users.acl").write_text("user old on\n")
    second = secrets(tmp_path / "s", "valkey:6379")
    assert second == {**first, "openai_api_key": "sk-mine"}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert len({value for value in second.values() if value}) == len([value for value in second.values() if value])


def test_without_a_name_every_command_says_so_in_one_line(given, tmp_path: Path) -> None:
    one, _ = given
    for words in (["worker"], ["keys", "list"]):
        for url in (one.url, f"redis://api:wrong@{one.place}/0"):
            result = Deployment(tmp_path, {"api": url}).vigil("api", *words)
            assert result.returncode in {1, 2}
            assert len(result.stderr.splitlines()) == 1
            assert "Redis" in result.stderr
            assert "Authentication" in result.stderr


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """Users who may do what the list in the code says, and nothing else."""
    folder = tmp_path_factory.mktemp("exact")
    made = secrets(folder / "secrets", "valkey:6379")
    lines = []
    for line in (folder / "secrets" / "users.acl").read_text().splitlines():
        name, rules = line.split()[1], line
        if name in ("api", "worker"):
            role: Role = "api" if name == "api" else "worker"
            password = next(word for word in line.split() if word.startswith("#"))
            commands = " ".join(f"+{command}" for command in sorted(names(role) | OPTIONAL))
            reads = "+type +exists +llen +lindex +lrange +get +xlen"
            audit = f"(~vigil:* ~arq:* -@all {reads} +xadd +xrange +xrevrange +eval +evalsha)"
            rules = f"user {name} on {password} resetkeys ~vigil:* ~arq:* resetchannels &vigil:* -@all {commands}"
            if role == "api":
                keys = "~vigil:[^as]* ~vigil:a[^u]* ~vigil:audited:* ~vigil:s[^e]* ~vigil:se[^a]* ~arq:*"
                rules = rules.replace("~vigil:* ~arq:*", keys, 1) + " " + audit
        lines.append(rules)
    (folder / "users.acl").write_text("\n".join(lines) + "\n")
    with server(folder / "data", "--aclfile", str(folder / "users.acl")) as one:
        yield one, made


def test_a_whole_vigil_needs_no_command_that_is_not_in_the_list(exact, tmp_path: Path) -> None:
    one, made = exact
    urls = {role: made[f"redis_url_{role}"].replace("valkey:6379", one.place) for role in ("api", "worker")}
    as_user(exact, "admin").execute_command("ACL", "LOG", "RESET")
    with deployed(tmp_path, urls) as vigil:
        try:
            work(vigil)
        finally:
            refused = as_user(exact, "admin").execute_command("ACL", "LOG", "50")
            assert {(row["username"], row["object"]) for row in refused if row["object"] not in OPTIONAL} == set()
