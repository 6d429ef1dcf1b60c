"""`NAME_FILE` hands a setting over as a file: read once, told with all other faults, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.jobs.errors import SettingsError
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
