"""`vigil pause`, `vigil resume` and `vigil quarantine` as a person at a terminal meets them, against a `vigil up`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vigil_process import Up, Vigil, free_port, one_line
from waiting import wait_for

NORMAL = "[[sim: normal tokens=3]] hello"


@pytest.fixture
def paused(up: Up) -> Iterator[Up]:
    """Whatever a test pauses or shuts out, the next one finds it open again."""
    yield up
    for pause in up.json("status")["pauses"]:
        up("resume", pause["scope"], *([pause["name"]] if pause["name"] else []))
    for row in up.json("quarantine", "list")["data"]:
        assert up("quarantine", "lift", row["safety_identifier"], "--reason", "the test is over").returncode == 0


def status_of(up: Up, job_id: str, wanted: str) -> dict[str, object]:
    """The job once it has this status."""

    def look() -> dict[str, object] | None:
        job = up.json("get", job_id)
        return dict(job) if job["status"] == wanted else None

    found: dict[str, object] = wait_for(f"{job_id} to be {wanted}", look)
    return found


def test_a_paused_model_starts_nothing_until_it_is_resumed(paused: Up) -> None:
    up = paused
    pause = up("pause", "model", "gpt-5.6-terra", "--note", "look first")
    assert (pause.returncode, pause.stdout) == (0, "paused model gpt-5.6-terra\n"), pause.stderr
    job = up.json("submit", NORMAL, "--model", "gpt-5.6-terra")
    held = status_of(up, job["id"], "scheduled")
    assert held["hold"]["reason"] == "look first"  # type: ignore[index]
    (row,) = up.json("status")["pauses"]
    assert (row["scope"], row["name"], row["note"], row["until"]) == ("model", "gpt-5.6-terra", "look first", None)
    assert "gpt-5.6-terra" in up("status").stdout
    assert up("resume", "model", "gpt-5.6-terra").stdout == "resumed model gpt-5.6-terra; 1 held jobs are due now\n"
    assert status_of(up, job["id"], "completed")
    again = up("resume", "model", "gpt-5.6-terra")
    assert (again.returncode, again.stdout) == (0, "model gpt-5.6-terra was not paused\n")


def test_everything_is_paused_with_an_end_and_as_json(paused: Up) -> None:
    up = paused
    made = up.json("pause", "all", "--until", "2099-01-31T12:00:00Z")
    assert (made["scope"], made["name"], made["until"]) == ("all", None, "2099-01-31T12:00:00Z")
    assert (
        up("pause", "all", "--until", "2099-02-01T12:00:00Z").stdout == "paused everything until 2099-02-01T12:00:00Z\n"
    )
    assert up.json("resume", "all") == {"scope": "all", "name": None, "resumed": True, "released": 0}
    assert up("resume", "all").stdout == "everything was not paused\n"


def test_an_end_user_is_shut_out_reviewed_and_let_in_again(paused: Up) -> None:
    up, ann = paused, "ann/1 ü"
    assert up("quarantine", "list").stdout == "No end user is in quarantine.\n"
    assert up("quarantine", "add", ann, "--reason", "reported").stdout == "ann/1 ü is in quarantine\n"
    listed = up("quarantine", "list").stdout
    assert "ann/1 ü" in listed
    assert "reported" in listed
    (row,) = up.json("quarantine", "list")["data"]
    assert (row["end_user"], row["source"], row["ledger"]["warnings"]) == (ann, "ops", 0)
    lifted = up("quarantine", "lift", ann, "--reason", "Appeal 7.")
    assert (lifted.returncode, lifted.stdout) == (0, "ann/1 ü may submit again\n"), lifted.stderr
    made = up.json("quarantine", "add", "bob", "--until", "2099-01-31T12:00:00Z")
    assert (made["end_user"], made["until"], made["reason"]) == ("bob", "2099-01-31T12:00:00Z", "")
    assert up.json("quarantine", "lift", made["safety_identifier"], "--reason", "r")["end_user"] == "bob"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pause"], 2, "'scope'"),
        (["pause", "world"], 2, "world"),
        (["pause", "model"], 2, "name"),
        (["pause", "all", "shop"], 2, "name"),
        (["pause", "model", "gpt-9"], 2, "models.toml"),
        (["pause", "all", "--until", "tomorrow"], 2, "until"),
        (["pause", "all", "--until", "2020-01-01T00:00:00Z"], 2, "until"),
        (["resume", "app"], 2, "name"),
        (["quarantine", "add"], 2, "END_USER"),
        (["quarantine", "add", ""], 2, "end_user"),
        (["quarantine", "add", "ann", "--reason", "\x1b[31m"], 2, "reason"),
        (["quarantine", "add", "ann", "--until", "2020-01-01T00:00:00Z"], 2, "until"),
        (["quarantine", "lift", "nobody", "--reason", "r"], 1, "No end user of this name"),
        (["quarantine", "lift", "nobody"], 2, "--reason"),
        (["quarantine", "lift", "nobody", "--reason", " "], 2, "reason"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_in_one_line(up: Up, words: list[str], code: int, message: str) -> None:
    result = up(*words)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert message in one_line(result)


@pytest.mark.parametrize("words", [["pause", "all"], ["resume", "all"], ["quarantine", "list"]], ids=str)
def test_without_an_api_or_with_a_wrong_key_it_says_so(up: Up, vigil: Vigil, words: list[str]) -> None:
    away = vigil(*words, VIGIL_URL=f"http://127.0.0.1:{free_port()}", VIGIL_API_KEY=up.key())
    assert away.returncode == 1
    one_line(away)
    wrong = vigil(*words, VIGIL_URL=up.url, VIGIL_API_KEY=up.key()[:-4] + "AAAA")
    assert wrong.returncode in {1, 2}
    assert up.key() not in one_line(wrong)


def test_a_key_without_the_scope_ops_is_refused(up: Up) -> None:
    made = up.json("keys", "create", "--app", "shop", "--scope", "submit", "--scope", "read", VIGIL_DATA_DIR=".vigil")
    for words in (["pause", "all"], ["resume", "all"], ["quarantine", "add", "ann"]):
        result = up(*words, VIGIL_API_KEY=made["key"])
        assert result.returncode == 1, result.stderr
        assert "ops" in one_line(result)
    assert up.json("status")["pauses"] == []
