"""`vigil probe` against a running `vigil up`: a table, an exit code, one line when it can't be done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from vigil_process import Up, Vigil, one_line

TERRA = "gpt-5.6-terra"


@contextmanager
def denied(up: Up, *models: str) -> Iterator[None]:
    """The simulator doesn't grant these."""
    found = re.search(r"simulator on (http://[^/]+)/v1", up.output)
    assert found is not None

    def tell(names: list[str]) -> None:
        answer = httpx2.post(f"{found[1]}/sim/denied", json={"models": names}, trust_env=False)
        assert answer.json() == {"denied": sorted(names)}

    tell(list(models))
    try:
        yield
    finally:
        tell([])


def test_all_models_are_ok(up: Up) -> None:
    result = up("probe")
    assert (result.returncode, result.stderr) == (0, "")
    head, *rows = result.stdout.partition("\n\n")[0].splitlines()
    assert head.split() == ["MODEL", "STATUS", "SINCE", "ADVICE"]
    assert {row.split()[0]: row.split()[1] for row in rows} == {
        "gpt-5.6-sol": "ok",
        TERRA: "ok",
        "gpt-5.6-luna": "ok",
    }
    assert re.search(r" 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ", rows[0])
    assert "VIGIL_UPSTREAM=background fits this provider" in result.stdout
    assert up.json("probe")["endpoint"]["fits"] is True


def test_a_model_that_is_not_granted_is_exit_1_with_the_next_step(up: Up) -> None:
    with denied(up, TERRA):
        result = up("probe")
        assert (result.returncode, result.stderr) == (1, "")
        row = next(line for line in result.stdout.splitlines() if line.startswith(TERRA))
        assert "not_granted" in row
        assert "ask the organisation's owner" in row
        assert "request id req_" in row
        refused = up("probe", "--json")
    assert refused.returncode == 1
    access = {model["id"]: model["access"] for model in json.loads(refused.stdout)["data"]}
    assert access[TERRA]["status"] == "not_granted"
    assert access["gpt-5.6-sol"]["status"] == "ok"
    assert {model["access"]["status"] for model in up.json("probe")["data"]} == {"ok"}


def test_a_key_without_the_scope_is_one_line(up: Up) -> None:
    key = json.loads(up("keys", "create", "--app", "shop", "--json").stdout)["key"]
    result = up("probe", VIGIL_API_KEY=key)
    assert (result.returncode, result.stdout) == (1, "")
    assert "lacks the scope ops" in one_line(result)
    assert "vigil keys create" in one_line(result)


def test_without_a_vigil_it_is_one_line(vigil: Vigil) -> None:
    result = vigil("probe", VIGIL_URL="http://127.0.0.1:1", VIGIL_API_KEY="vgl_x")
    assert result.returncode == 1
    assert "no Vigil answers" in one_line(result)
    assert vigil("probe").returncode == 2
