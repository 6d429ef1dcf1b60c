"""`vigil keys` against the embedded server, which is started for the moment."""

from __future__ import annotations

import base64
import json

from vigil_process import Vigil, one_line

from worker.store.key_text import is_well_formed


def test_a_key_is_made_listed_and_revoked(vigil: Vigil) -> None:
    made = json.loads(vigil("keys", "create", "--app", "shop", "--json").stdout)
    assert list(made) == ["id", "app", "key", "webhook_secret", "scopes"]
    assert (made["app"], made["scopes"]) == ("shop", ["submit", "read"])
    assert is_well_formed(made["key"])
    assert made["webhook_secret"].startswith("whsec_")

    again = json.loads(vigil("keys", "create", "--app", "shop", "-s", "audit", "-s", "ops,audit", "--json").stdout)
    assert again["scopes"] == ["audit", "ops"]
    assert again["webhook_secret"] == made["webhook_secret"]

    assert vigil("keys", "revoke", made["id"]).stdout == f"revoked {made['id']} of app shop\n"
    listed = vigil("keys", "list", "--json").stdout
    assert [(k["id"], k["revoked_at"] is None) for k in json.loads(listed)["data"]] == [
        (made["id"], False),
        (again["id"], True),
    ]
    assert made["key"] not in listed
    assert made["key"][-4:] in vigil("keys", "list").stdout


def test_a_person_is_reported_that_the_key_is_shown_once(vigil: Vigil) -> None:
    result = vigil("keys", "create", "--app", "shop")
    assert result.returncode == 0
    assert "shown only now" in result.stdout


def test_an_app_has_the_default_rate_or_its_own(vigil: Vigil) -> None:
    vigil("keys", "create", "--app", "shop", "--rate", "600")
    assert vigil("keys", "rate", "shop").stdout == "shop: 600 jobs per minute, 600 at once\n"
    vigil("keys", "create", "--app", "shop")
    assert vigil("keys", "rate", "shop").stdout.startswith("shop: 600 jobs")  # another key of it changes nothing
    shown = json.loads(vigil("keys", "rate", "shop", "60", "--burst", "5", "--json").stdout)
    assert shown == {"app": "shop", "per_minute": 60, "burst": 5, "default": False}
    assert vigil("keys", "rate", "shop", "0").stdout == "shop: no limit\n"
    default = vigil("keys", "rate", "shop", "--default", VIGIL_RATE_PER_MINUTE="90").stdout
    assert default == "shop: 90 jobs per minute, 90 at once (the default)\n"


def test_a_rate_that_cant_be_set_says_why(vigil: Vigil) -> None:
    assert "There is no app nobody" in one_line(vigil("keys", "rate", "nobody", "5"))
    vigil("keys", "create", "--app", "shop")
    for wrong in (("5", "--default"), ("--burst", "3"), ("-1",), ("x",)):
        assert vigil("keys", "rate", "shop", *wrong).returncode == 2


def test_no_keys_is_said_in_words(vigil: Vigil) -> None:
    assert "`vigil keys create --app NAME` makes one" in vigil("keys", "list").stdout


def test_revoking_what_is_not_there(vigil: Vigil) -> None:
    result = vigil("keys", "revoke", "key_nope")
    assert result.returncode == 1
    assert "There is no key key_nope" in one_line(result)


def test_redis_that_is_away_is_one_line(vigil: Vigil) -> None:
    result = vigil("keys", "list", VIGIL_REDIS_URL="redis://127.0.0.1:1")
    assert result.returncode == 1
    assert "Redis could not list keys" in one_line(result)


def test_encryption_keys_are_fresh_and_fit(vigil: Vigil) -> None:
    keys = [vigil("keys", "generate-encryption").stdout.strip() for _ in range(2)]
    assert [len(base64.urlsafe_b64decode(key)) for key in keys] == [32, 32]
    assert keys[0] != keys[1]
    assert vigil("cost", "--input", "1", VIGIL_ENCRYPTION_KEYS=",".join(keys)).returncode == 0
