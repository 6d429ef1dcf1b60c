"""`vigil console` and the link of `vigil up`: each logs a browser in once."""

from __future__ import annotations

import json
import re

import httpx2
from vigil_process import Up, one_line
from waiting import LIMIT


def log_in(url: str, link: str) -> httpx2.Response:
    """What a browser sends that has opened the link."""
    address, _, token = link.partition("/login#link=")
    assert address == f"{url}/console"
    with httpx2.Client(timeout=LIMIT, trust_env=False) as client:
        return client.post(f"{address}/login", data={"secret": token}, headers={"Origin": url})


def test_the_link_of_vigil_up_logs_in_once(started_now: Up) -> None:
    found = re.search(r"console +(http\S+) +\(logs in once", started_now.output)
    assert found is not None
    assert [log_in(started_now.url, found[1]).status_code for _ in range(2)] == [303, 401]


def test_another_link_for_the_same_key(up: Up) -> None:
    printed = up("console")
    assert printed.returncode == 0
    assert re.search(r"as local, submit, read, audit, ops, content; works once, within 10 minutes", printed.stdout)
    assert log_in(up.url, printed.stdout.split()[0]).status_code == 303


def test_a_link_for_a_key_of_another_app(up: Up) -> None:
    made = json.loads(up("keys", "create", "--app", "other", "--scope", "read", "--json").stdout)
    shown = up.json("console", "--key", made["id"])
    assert (shown["app"], shown["seconds"]) == ("other", 600)
    assert log_in(up.url, shown["url"]).status_code == 303
    assert up("keys", "revoke", made["id"]).returncode == 0
    refused = up("console", "--key", made["id"])
    assert refused.returncode == 1
    assert "no such live key" in one_line(refused)
