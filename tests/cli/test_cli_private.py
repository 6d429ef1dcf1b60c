"""What `vigil up` writes is for its own user, also what an earlier release left; and it says when others reach it."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from vigil_process import Up, free_port, one_line, run, start_up
from waiting import LIMIT

from worker.cli.up import outside_url
from worker.embedded import EmbeddedValkey
from worker.jobs.errors import SettingsError
from worker.private_files import make_private
from worker.settings_loader import load

SHORT = {
    "OPENAI_WEBHOOK_SECRET": ["whsec_AA==", "whsec_" + "QUFB" * 7 + "QQ==", "short-plain-text-secret"],
    "VIGIL_IDENTIFIER_SECRET": ["x", "twenty-three-bytes-long", "é" * 11],
    "VIGIL_AUDIT_KEY": ["QUFB"],
    "VIGIL_ENCRYPTION_KEYS": ["QUFB" * 8],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SHORT.items() for value in values])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_short_secret_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, by_file: bool
) -> None:
    (tmp_path / "given").write_text(value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{name}_FILE" if by_file else name, str(tmp_path / "given") if by_file else value)
    with pytest.raises(SettingsError) as raised:
        load()
    (fault,) = raised.value.faults
    assert fault.startswith(f"{name}_FILE: " if by_file else f"{name}: ")
    assert len(value) == 1 or value not in fault


def test_vigil_does_not_start_with_one(tmp_path: Path) -> None:
    result = run(tmp_path, "worker", OPENAI_WEBHOOK_SECRET="whsec_AA==")
    assert (result.returncode, result.stdout) == (2, "")
    assert "OPENAI_WEBHOOK_SECRET: is only 1 bytes long, a secret has at least 24" in one_line(result)


@pytest.mark.parametrize("secret", ["whsec_" + "QUFB" * 8, "exactly-24-bytes-long-ok"])
def test_a_secret_of_24_bytes_is_long_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", secret)
    monkeypatch.setenv("VIGIL_IDENTIFIER_SECRET", "x" * 24)
    assert load().openai_webhook_secret is not None


def open_to_others(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    return [str(path) for path in found if not path.is_symlink() and stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_all_that_is_written_is_for_its_own_user_and_listening_for_other_machines_is_warned_of(tmp_path: Path) -> None:
    data = tmp_path / ".vigil"
    (data / "appendonlydir").mkdir(parents=True, mode=0o755)
    for name in ("valkey.log", "store.json", "cli.json"):
        (data / name).write_text("")
        (data / name).chmod(0o644)
    old = os.umask(0o000)
    try:
        running = start_up(tmp_path, free_port(), "--host", "0")
    finally:
        os.umask(old)
    try:
        assert "warning: other machines can reach this Vigil" in running.output
        outside = re.search(r"outside +(\S+) ", running.output)
        assert running.url in re.findall(r"http://[^\s/']+", running.output)
        assert outside is not None
        for url in {running.url, outside[1]}:
            assert httpx2.get(f"{url}/healthz", timeout=LIMIT, trust_env=False).status_code == 200
        assert running("submit", "--wait", "hello").returncode == 0
        assert open_to_others(data) == []
        assert {"valkey.log", "appendonlydir", "cli.json", "encryption.key"} <= set(os.listdir(data))  # noqa: PTH208
        assert any((data / "appendonlydir").iterdir())
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate(timeout=LIMIT)
    assert open_to_others(data) == []


async def test_the_embedded_server_of_a_worker_writes_for_its_user_too(tmp_path: Path) -> None:
    (tmp_path / "v" / "appendonlydir").mkdir(parents=True)
    left = tmp_path / "v" / "appendonlydir" / "appendonly.aof.manifest.old"
    left.write_text("x")
    left.chmod(0o644)
    async with EmbeddedValkey(tmp_path / "v"):
        assert open_to_others(tmp_path / "v") == []


def test_a_folder_that_serves_other_purposes_keeps_its_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (tmp_path / "here", tmp_path / "sticky"):
        folder.mkdir()
        (folder / "theirs.txt").write_text("")
        (folder / "theirs.txt").chmod(0o644)
        (folder / "valkey.log").write_text("")
        folder.chmod(0o1777 if folder.name == "sticky" else 0o755)
        (folder / "valkey.log").chmod(0o644)
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    (tmp_path / "here" / "cli.json").symlink_to(outside)
    monkeypatch.chdir(tmp_path / "here")
    for folder in (tmp_path / "here", tmp_path / "sticky"):
        before = folder.stat().st_mode
        make_private(folder)
        assert folder.stat().st_mode == before
        assert stat.S_IMODE((folder / "theirs.txt").stat().st_mode) == 0o644
        assert stat.S_IMODE((folder / "valkey.log").stat().st_mode) == 0o600
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644, "no link is followed"


def test_nobody_is_warned_of_what_only_this_machine_reaches(up: Up) -> None:
    assert "warning: other machines" not in up.output
    assert "outside" not in up.output


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        *(("127.0.0.1", None), ("127.0.0.2", None), ("::1", None), ("::ffff:127.0.0.1", None)),
        *(("192.0.2.7", "http://192.0.2.7:8700"), ("2001:db8::7", "http://[2001:db8::7]:8700")),
    ],
)
def test_the_url_for_other_machines(bound: str, expected: str | None) -> None:
    assert outside_url(ip_address(bound), 8700) == expected


def test_every_address_of_the_machine_gives_one_that_is_its_own() -> None:
    url = outside_url(ip_address("0.0.0.0"), 8700)  # noqa: S104  nothing listens
    host = (url or "").removeprefix("http://").rpartition(":")[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind((host, 0))  # raises for an address of another machine
