"""`NAME_FILE` hands a setting over as a file: read once, told with all other faults, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from vigil_process import free_port, one_line, run

from worker.cli.doctor.external_checks import api_check
from worker.cli.errors import explain
from worker.embedded import EmbeddedValkey
from worker.jobs.errors import SettingsError
from worker.provider_accounts import provider_accounts
from worker.settings import Settings
from worker.settings_files import check_files
from worker.settings_loader import load


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("VIGIL_REDIS_URL", "VIGIL_ENCRYPTION_KEYS", "OPENAI_API_KEY", "VIGIL_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_a_secret_comes_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-a-file\n")
    (tmp_path / "url").write_text("redis://api:pass@valkey:6379/0")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("VIGIL_REDIS_URL_FILE", str(tmp_path / "url"))
    settings = load()
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-from-a-file"
    assert settings.redis_url == "redis://api:pass@valkey:6379/0"


def test_the_env_file_may_name_one_too(tmp_path: Path) -> None:
    (tmp_path / "port").write_text("9123\n")
    (tmp_path / ".env").write_text(f"VIGIL_PORT_FILE={tmp_path / 'port'}\n")
    assert load().port == 9123
    assert load({"port": 9200}).port == 9200  # an option of the command line wins


def test_an_empty_file_is_a_setting_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    assert load().openai_api_key is None


def test_all_faults_are_reported_together_without_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("not-a-key-but-secret")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00secret")
    monkeypatch.setenv("VIGIL_ENCRYPTION_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "nowhere"))
    monkeypatch.setenv("VIGIL_IDENTIFIER_SECRET_FILE", str(tmp_path / "bytes"))
    monkeypatch.setenv("VIGIL_REDIS_URL", "redis://:secret@one")
    monkeypatch.setenv("VIGIL_REDIS_URL_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("VIGIL_PORT", "70000")
    with pytest.raises(SettingsError) as raised:
        load()
    faults = sorted(raised.value.faults)
    assert [fault.partition(":")[0] for fault in faults] == [
        "OPENAI_API_KEY_FILE",
        "VIGIL_ENCRYPTION_KEYS_FILE",
        "VIGIL_IDENTIFIER_SECRET_FILE",
        "VIGIL_PORT",
        "VIGIL_REDIS_URL_FILE",
    ]
    assert "can't be read (No such file or directory)" in faults[0]
    assert "only one of the two" in faults[4]
    assert "secret" not in "".join(faults).replace("IDENTIFIER_SECRET", "").replace(str(tmp_path), "")


PLACES = ("VIGIL_DATA_DIR", "VIGIL_STORE_MARK", "VIGIL_AUDIT_CHECKPOINTS")


@pytest.mark.parametrize("words", [["api", "--port", "0"], ["worker"], ["up", "--port", "0"]])
def test_every_place_that_cannot_be_written_is_named_at_start(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path, *words, **dict.fromkeys(PLACES, str(tmp_path / "file" / "below")))
    assert result.returncode == 2, result.stderr
    assert [name for name in PLACES if f"{name}: {tmp_path}" in one_line(result)] == [*PLACES]


@pytest.mark.parametrize("variable", PLACES)
@pytest.mark.parametrize("place", ["/proc/x/y", "/dev/null", "/dev/null/x"])
def test_a_place_that_is_set_and_cannot_be_written_is_a_fault(
    variable: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv(variable, place)
    with pytest.raises(SettingsError, match=rf"{variable}: {place} can't be written \(.+\); name a "):
        check_files(load())


def test_places_that_are_missing_are_made_and_folders_may_hold_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VIGIL_DATA_DIR", "VIGIL_STORE_MARK"):
        monkeypatch.setenv(name, str(tmp_path / name / "new" / "place"))
    monkeypatch.setenv("VIGIL_AUDIT_CHECKPOINTS", str(tmp_path))
    check_files(load())
    check_files(load())  # as when it starts again
    assert not list(tmp_path.glob("*/new/place/*"))


def test_a_default_that_cannot_be_written_stops_only_the_embedded_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".vigil").write_text("")
    with pytest.raises(SettingsError, match="VIGIL_DATA_DIR"):
        check_files(load())
    monkeypatch.setenv("VIGIL_REDIS_URL", "redis://127.0.0.1:6379/0")
    check_files(load())  # such as a container whose files are read-only


async def test_the_embedded_redis_names_its_folder_whichever_command_starts_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="VIGIL_DATA_DIR"):
        await EmbeddedValkey(tmp_path / "file").start()


def test_another_file_that_cannot_be_used_is_named() -> None:
    assert explain(FileNotFoundError(2, "No such file or directory", "/x/y")) == (
        "/x/y can't be used (No such file or directory)",
        1,
    )


@pytest.mark.parametrize("port", ["99999", "0", "x", "-1"])
def test_an_address_with_an_impossible_port_is_a_fault(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("SENTRY_DSN", f"http://key@127.0.0.1:{port}/1")
    with pytest.raises(SettingsError) as raised:
        load()
    assert sorted(fault.partition(":")[0] for fault in raised.value.faults) == ["OPENAI_BASE_URL", "SENTRY_DSN"]


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_certificate_that_cannot_be_read_is_named(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no certificate")
    monkeypatch.setenv("VIGIL_REDIS_URL", f"rediss://:hunter2@db:6379/0?{option}={tmp_path}/nowhere")
    with pytest.raises(SettingsError, match=rf"VIGIL_REDIS_URL: the file of \?{option}= can't be read") as raised:
        load()
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("VIGIL_REDIS_URL", f"rediss://db:6379/0?{option}={tmp_path}/text")
    if option != "ssl_keyfile":  # unused without a certificate
        with pytest.raises(SettingsError, match="must be PEM"):
            load()


async def test_doctor_looks_for_the_api_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    port, other = free_port(), free_port()
    monkeypatch.setenv("VIGIL_PORT", str(port))
    monkeypatch.setenv("VIGIL_HOST", "127.0.0.2")
    assert f"nothing answers at http://127.0.0.2:{port} " in (await api_check(load())).detail
    monkeypatch.setenv("VIGIL_URL", f"http://127.0.0.1:{other}")
    assert f"nothing answers at http://127.0.0.1:{other} " in (await api_check(load())).detail


@pytest.mark.parametrize(
    ("address", "setting", "regional"),
    [
        (None, None, False),
        ("https://api.openai.com/v1", None, False),
        ("https://eu.api.openai.com/v1", None, True),
        ("https://eu.api.openai.com.evil.example/v1", None, False),
        ("https://eu.api.openai.com/v1", "0", False),
        ("https://gateway.example/v1", "1", True),
    ],
)
def test_a_regional_address_costs_more_unless_it_is_said(
    address: str | None, setting: str | None, regional: bool
) -> None:
    given = {"OPENAI_BASE_URL": address} | ({"regional_processing": setting} if setting is not None else {})
    accounts = provider_accounts(Settings(_env_file=None, **given))  # type: ignore[arg-type]
    assert accounts.by_name["default"].regional is regional
