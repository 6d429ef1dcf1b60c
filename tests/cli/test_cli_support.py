"""`vigil support-packet` and `vigil status` against a running `vigil up`, whose provider tells of blocks by webhook."""

from __future__ import annotations

import json

import pytest
from vigil_process import Up, Vigil, one_line
from waiting import wait_for

CANARY = "xyzzy-prompt-canary"


@pytest.fixture(scope="module")
def blocked(up: Up) -> str:
    """The id of a job whose content was withheld, and whose end user the provider then blocked."""
    prompt = f"[[sim: check_then_block hold=5 notify=identifier_blocked]] {CANARY}"
    result = up("submit", "--wait", "--json", "--end-user", "mallory@corp.example", prompt)
    return str(json.loads(result.stdout)["id"])


def test_the_packet_is_printed_in_the_template(up: Up, blocked: str) -> None:
    result = up("support-packet", blocked)
    assert (result.returncode, result.stderr) == (0, "")
    labels = [line.split(":")[0] for line in result.stdout.splitlines()[2:11]]
    assert labels == [
        *("Surface", "Model", "API organization ID or Codex workspace ID", "Approved account email"),
        *("Exact error message", "Request ID", "Timestamp and timezone", "VPN/proxy status"),
        "Brief redacted task description",
    ]
    assert "cyber_policy" in result.stdout
    for word in (CANARY, "mallory"):
        assert word not in result.stdout


def test_the_webhooks_of_the_simulator_reach_it_without_being_set_up(up: Up, blocked: str) -> None:
    notices = wait_for("the notice", lambda: up.json("get", blocked)["safety"]["notices"])
    assert notices[0]["type"] == "safety_identifier.blocked"
    assert up.json("status")["account"]["evidence"]["notices"] == {"safety_identifier.blocked": 1}


def test_what_is_taken_out_of_a_description_is_reported_before_it_is_sent(up: Up, blocked: str, tmp_path) -> None:
    words = "Withheld since noon; our key is vgl_0123456789abcdefghij and mine is a@example.com."
    preview = up("support-packet", blocked, "--description", words, "--preview")
    assert preview.returncode == 0
    message, _, table = preview.stdout.partition("\n\n")
    assert (
        message == "Withheld since noon; our key is [redacted: Vigil API Key] and mine is [redacted: E-mail Address]."
    )
    assert [line.split() for line in table.splitlines()] == [
        ["DETECTOR", "FOUND"],
        ["E-mail", "Address", "1"],
        ["Vigil", "API", "Key", "1"],
    ]
    file = tmp_path / "words.txt"
    file.write_text(words, encoding="utf-8")
    whole = up("support-packet", blocked, "--description-file", str(file))
    assert "0123456789abcdefghij" not in whole.stdout + whole.stderr
    assert "removed from the description: 1 x Vigil API Key" in whole.stderr
    assert up.json("support-packet", blocked, "--description", "plain words")["redactions"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--description", "a", "--description-file", "b"], "not both"),
        (["--preview"], "--preview needs --description"),
        (["--description-file", "nowhere"], "nowhere can't be read"),
    ],
)
def test_wrong_usage_is_one_line(vigil: Vigil, words: list[str], message: str) -> None:
    result = vigil("support-packet", "job_1", *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in one_line(result)


def test_a_job_that_is_not_there_is_one_line(up: Up) -> None:
    result = up("support-packet", "job_nope")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no such job" in one_line(result)


def test_status_shows_queue_account_and_rates(up: Up, blocked: str) -> None:
    result = up("status")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["queue", "workers", "account", "rates"]
    assert lines[2] == "account  normal"
    assert any(line.split()[:2] == ["gpt-5.6", "normal"] for line in lines)
