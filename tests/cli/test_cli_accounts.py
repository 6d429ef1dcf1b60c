"""The accounts file and its secrets: every fault is told at once, before anything starts, and no secret is shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from worker.cli.doctor.check import DoctorCheck
from worker.cli.doctor.provider_checks import provider_checks
from worker.jobs.errors import SettingsError
from worker.provider_accounts import provider_accounts
from worker.settings_loader import load

KEY, WEBHOOK = "sk-CANARY-of-research", "whsec_" + "A" * 43 + "="
GOOD = """[accounts.research]
organization = "org-1"
[accounts.eu]
project = "proj_1"
base_url = "https://eu.api.openai.com/v1"
upstream = "stream"
[apps]
lab = "research"
[models]
"gpt-5.6-sol" = "eu"
"""


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "VIGIL_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "accounts.toml"
    path.write_text(GOOD)
    monkeypatch.setenv("VIGIL_ACCOUNTS_FILE", str(path))
    return path


def faults() -> str:
    with pytest.raises(SettingsError) as raised:
        load()
    text = "\n".join(raised.value.faults)
    assert "CANARY" not in text
    return text


def test_keys_come_from_settings_or_files_and_everything_else_from_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    monkeypatch.setenv("VIGIL_ACCOUNT_RESEARCH_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("VIGIL_ACCOUNT_EU_API_KEY", "sk-eu")
    monkeypatch.setenv("VIGIL_ACCOUNT_EU_WEBHOOK_SECRET", WEBHOOK)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-default")
    settings = load()
    accounts = provider_accounts(settings)
    accounts.require_keys()
    assert {name: one.key for name, one in accounts.by_name.items()} == {
        "default": "sk-default",
        "research": KEY,
        "eu": "sk-eu",
    }
    eu = accounts.by_name["eu"]
    assert (eu.project, eu.regional, eu.upstream) == ("proj_1", True, "stream")
    assert (accounts.by_name["research"].organization, accounts.by_name["research"].upstream) == ("org-1", "background")
    catalogue = settings.catalogue()
    requests = [("lab", "gpt-5.6-sol"), ("acme", "gpt-5.6-sol"), ("acme", "gpt-5.6-luna")]
    assert [accounts.of(app, model, catalogue).name for app, model in requests] == ["research", "eu", "default"]
    assert "CANARY" not in repr(accounts) + repr(settings)
    passed = pickle.loads(pickle.dumps(settings.model_copy(update={"port": 1})))  # noqa: S301  as `vigil up` does
    assert provider_accounts(passed).by_name["research"].key == KEY


def test_an_api_needs_no_key_and_a_worker_all_of_them() -> None:
    accounts = provider_accounts(load())
    with pytest.raises(SettingsError) as raised:
        accounts.require_keys()
    assert [fault.partition(":")[0] for fault in raised.value.faults] == [
        "VIGIL_ACCOUNT_RESEARCH_API_KEY",
        "VIGIL_ACCOUNT_EU_API_KEY",
    ]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('[families]\n"gpt-5.6" = "reserch"', "there is no account 'reserch'; known: default, eu, research"),
        ('[families]\n"gpt-9" = "eu"', "there is no family 'gpt-9'"),
        ('[accounts.default]\nproject = "p"', "account 'default': its settings are OPENAI_API_KEY"),
        ("[accounts.Lab-2]", "account 'Lab-2': a name has at most 32 lower case letters"),
        ('[accounts.x]\napi_key = "sk-CANARY"', "a secret does not belong into this file; set VIGIL_ACCOUNT_X_API_KEY"),
        ('[accounts.x]\norganisation = "o"', "unknown key 'organisation'; known: organization, project"),
        ('[accounts.x]\nbase_url = "eu.example"', "`base_url` is an http:// or https:// address"),
        ('[accounts.x]\nupstream = "batch"', "`upstream` is one of background, stream, chat"),
        ("[app]", "unknown key 'app'; known: accounts, apps, models, families"),
        ('[accounts.x]\napi_key = "sk-CANARY', "is not TOML"),
    ],
)
def test_a_wrong_name_or_value_is_refused_at_once(file: Path, more: str, fault: str) -> None:
    file.write_text(f"{GOOD}\n{more}\n")
    assert fault in faults()


def test_a_model_that_does_not_exist_is_refused(file: Path) -> None:
    file.write_text(GOOD.replace("gpt-5.6-sol", "gpt-5.6-soll"))
    assert "the models file has no 'gpt-5.6-soll'" in faults()


def test_secrets_of_no_account_and_bad_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIGIL_ACCOUNT_RESERCH_API_KEY", "sk-CANARY")
    monkeypatch.setenv("VIGIL_ACCOUNT_EU_WEBHOOK_SECRET", "CANARY")
    monkeypatch.setenv("VIGIL_ACCOUNT_EU_API_KEY", "sk-CANARY")
    text = faults()
    assert "VIGIL_ACCOUNT_RESERCH_API_KEY" in text
    assert "VIGIL_ACCOUNT_EU_WEBHOOK_SECRET: is too short" in text
    monkeypatch.setenv("VIGIL_ACCOUNT_EU_API_KEY_FILE", str(tmp_path / "nowhere"))
    assert "VIGIL_ACCOUNT_EU_API_KEY_FILE: VIGIL_ACCOUNT_EU_API_KEY is set too" in faults()
    monkeypatch.delenv("VIGIL_ACCOUNTS_FILE")
    for name in ("EU_API_KEY_FILE", "EU_WEBHOOK_SECRET", "EU_API_KEY"):
        monkeypatch.delenv(f"VIGIL_ACCOUNT_{name}")
    assert "VIGIL_ACCOUNT_RESERCH_API_KEY: set VIGIL_ACCOUNTS_FILE" in faults()


async def test_doctor_tells_what_is_overruled_and_which_account_has_no_key(file: Path) -> None:
    async def checks() -> list[DoctorCheck]:
        return [check async for check in provider_checks(load())]

    found = {check.name: check for check in await checks()}
    assert found["provider (research)"].detail == "no VIGIL_ACCOUNT_RESEARCH_API_KEY here, which every worker needs"
    assert "app lab uses account research, also for model gpt-5.6-sol" in found["accounts"].detail
    file.write_text(GOOD.replace('[models]\n"gpt-5.6-sol" = "eu"', ""))
    assert [check.detail for check in await checks() if check.name == "accounts"] == ["nothing is bound to eu"]
