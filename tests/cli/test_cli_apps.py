"""`vigil apps`: weights and limits, against the embedded server."""

from __future__ import annotations

import json

import pytest
from vigil_process import Vigil, one_line


def test_an_apps_terms_are_set_and_listed(vigil: Vigil) -> None:
    for app in ("shop", "mall"):
        assert vigil("keys", "create", "--app", app).returncode == 0
    assert vigil("apps", "set", "shop", "--weight", "2.5", "--max-running", "40").returncode == 0
    assert "shop: weight 2.5, running at once: 40" in vigil("apps", "set", "shop", "--weight", "2.5").stdout
    listed = json.loads(vigil("apps", "list", "--json").stdout)["data"]
    assert listed == [
        {"name": "mall", "weight": 1.0, "max_running": None, "end_user_max": None, "require_end_user": False},
        {"name": "shop", "weight": 2.5, "max_running": 40, "end_user_max": None, "require_end_user": False},
    ]
    again = json.loads(vigil("apps", "set", "shop", "--max-running", "default", "--end-user-max", "3", "--json").stdout)
    assert again == {
        "name": "shop",
        "weight": 2.5,
        "max_running": None,
        "end_user_max": 3,
        "require_end_user": False,
    }
    assert "as the settings say" in vigil("apps", "list").stdout
    required = vigil("apps", "set", "mall", "--require-end-user")
    assert required.stdout.endswith(", each job must name its end user\n"), required.stderr
    assert "required" in vigil("apps", "list").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nobody", "--weight", "1"], 1, "no app nobody"),
        (["shop"], 2, "--weight, --max-running, --end-user-max or --require-end-user"),
        (["shop", "--weight", "0"], 2, "weight"),
        (["shop", "--max-running", "many"], 2, "whole number"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_in_one_line(vigil: Vigil, words: list[str], code: int, message: str) -> None:
    vigil("keys", "create", "--app", "shop")
    result = vigil("apps", "set", *words)
    assert result.returncode == code
    assert message in one_line(result)
