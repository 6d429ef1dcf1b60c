"""Which account serves a request: that of the app, else that of the model, else that of its family, else default."""

from __future__ import annotations

import pytest

from worker.catalogue_file import read_catalogue, shipped_models_file
from worker.jobs.account_name import is_account_name
from worker.jobs.accounts import AccountBindings, read_bindings

CATALOGUE = read_catalogue(shipped_models_file())
SOL = CATALOGUE.models["gpt-5.6-sol"]
LUNA = CATALOGUE.models["gpt-5.6-luna"]
BOUND = AccountBindings({"lab": "a"}, {SOL.id: "b"}, {LUNA.family: "c"})


@pytest.mark.parametrize(
    ("app", "model", "account"),
    [
        ("lab", SOL.id, "a"),  # the app's own wins over the model's
        ("lab", "no-such-model", "a"),
        ("acme", SOL.id, "b"),
        ("acme", LUNA.id, "c"),
        ("acme", "no-such-model", "default"),
        *(("acme", alias, "b") for alias in SOL.aliases),
    ],
)
def test_the_app_comes_before_the_model_and_the_model_before_its_family(app: str, model: str, account: str) -> None:
    assert BOUND.account_of(app, model, CATALOGUE) == account


def test_without_bindings_everything_is_the_default_accounts() -> None:
    assert AccountBindings().account_of("acme", SOL.id, CATALOGUE) == "default"
    assert AccountBindings().accounts_of("acme") == {"default"}
    assert BOUND.accounts_of("lab") == {"a"}
    assert BOUND.accounts_of("acme") == {"default", "b", "c"}


def test_what_another_binding_overrules_is_told() -> None:
    sentences = list(BOUND.overruled(CATALOGUE))
    assert any("app lab uses account a" in one and SOL.id in one for one in sentences)
    assert any(f"family {LUNA.family}" in one and SOL.id in one for one in sentences)
    assert list(AccountBindings({"lab": "a"}, {SOL.id: "a"}).overruled(CATALOGUE)) == []


def test_names_that_do_not_exist_are_faults_and_apps_may_come_later() -> None:
    wrong = AccountBindings({"new-app": "a"}, {"gpt-0": "a", SOL.id: "nobody"}, {"gpt-none": "a"})
    faults = list(wrong.faults({"default", "a"}, CATALOGUE, allow_unknown_models=False))
    assert [one.partition(":")[0] for one in faults] == [
        f"[models] '{SOL.id}'",
        "[families] there is no family 'gpt-none'; known",
        "[models] the models file has no 'gpt-0'; known",
    ]
    assert len(list(wrong.faults({"default", "a"}, CATALOGUE, allow_unknown_models=True))) == 2


def test_the_tables_of_a_file_hold_one_account_for_each_name() -> None:
    bindings, faults = read_bindings({"apps": {"lab": "a", "x": ["a", "b"]}, "models": "a"})
    assert bindings.apps == {"lab": "a"}
    assert len(faults) == 2


@pytest.mark.parametrize(("name", "fits"), [("research", True), ("a_1", True), ("Research", False), ("a-b", False)])
def test_a_name_can_be_a_part_of_a_settings_name(name: str, fits: bool) -> None:
    assert is_account_name(name) is fits
