"""`vigil lab` as a person calls it, in a folder of its own."""

from __future__ import annotations

import json
import sys

import pytest
import typer
from lab_cases import Trail, parsed

from worker.cli import lab
from worker.cli.errors import EXIT_USAGE, CliError
from worker.jobs.errors import UnknownModel


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command; what it printed."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    lab.register(app)

    def run(*words):
        typer.main.get_command(app).main(list(words), prog_name="lab", standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_a_table_for_a_person(call):
    output = call("--jobs", "200", "--seed", "4").splitlines()
    assert output[0].startswith("200 jobs (synthetic, seed 4); silence counts as a check after 120 s")
    assert output[1].split()[:4] == ["ACTION", "AFTER", "P50", "P95"]
    assert len(output) == 2 + 25 + 2


@pytest.mark.parametrize(("columns", "ruled"), [("140", True), ("60", False)])
def test_on_a_terminal_the_table_is_ruled_if_it_fits_and_never_cut(call, monkeypatch, columns, ruled):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output = call("--jobs", "20")
    assert ("\u2500" in output) is ruled
    assert "\u2026" not in output
    assert output.count("switch") == 5


def test_json_for_a_program_is_the_same_each_time(call):
    output = call("--jobs", "200", "--accept", "0.5", "--json")
    assert output == call("--jobs", "200", "--accept", "0.5", "--json")
    body = json.loads(output)
    assert (body["jobs"], body["currency"], len(body["policies"])) == (200, "USD", 25)
    first = body["policies"][0]
    assert (first["action"], first["after_seconds"], first["extra"]) == ("wait", 15.0, "0.000000")


def test_some_actions_and_thresholds(call):
    body = json.loads(call("--jobs", "50", "--action", "race", "--after", "20,10", "--json"))
    assert [(p["action"], p["after_seconds"]) for p in body["policies"]] == [("race", 10.0), ("race", 20.0)]


def test_a_recorded_trail_and_a_chart(call, tmp_path):
    trail = Trail().begin().check(1, 90).end(100)
    trail.begin(job="job_2").end(9, job="job_2").begin(job="job_3")
    (tmp_path / "trail.ndjson").write_text("\n".join(trail.lines))
    output = call("--trail", "trail.ndjson", "--chart", "c.svg")
    assert "2 jobs (trail.ndjson)" in output
    assert "Left out: 1 still running." in output
    assert parsed((tmp_path / "c.svg").read_text(encoding="utf-8")).tag.endswith("svg")


@pytest.mark.parametrize("words", [["--silence", "nan"], ["--accept", "1.5"], ["--jobs", "0"], ["--seed", "x"]])
def test_numbers_out_of_range_are_usage_errors(call, words):
    with pytest.raises(typer.BadParameter):
        call(*words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--action", "sell"], "--action 'sell' is unknown; known: wait, offer, switch, race, draft"),
        (["--after", "soon"], "--after 'soon' is no list of seconds"),
        (["--after", "nan"], "--after 'nan' is no list of seconds"),
        (["--after", "-1"], "--after '-1' is no list of seconds"),
        (["--trail", "none.ndjson"], "none.ndjson can't be read (No such file or directory)"),
        (["--trail", "."], ". can't be read (Is a directory)"),
        (["--trail", "binary"], "binary is not UTF-8 text"),
        (["--trail", "words"], "words, line 1: not JSON"),
        (["--trail", "empty"], "empty: there is no audit record in it"),
        (["--trail", "open"], "open: none of its jobs can be replayed: 1 still running"),
        (["--chart", "no/such/folder.svg", "--jobs", "5"], "no/such/folder.svg can't be written"),
    ],
)
def test_bad_input_gives_one_clear_line(call, tmp_path, words, line):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "words").write_text("hello\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "open").write_text("\n".join(Trail().begin().lines))
    with pytest.raises(CliError) as caught:
        call(*words)
    assert str(caught.value).startswith(line)
    assert caught.value.code == EXIT_USAGE
    assert "\n" not in str(caught.value)


def test_stdin_is_a_trail_too(call, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Trail().begin().check(1, 90).end(100).lines)
    assert "1 job (stdin)" in call("--trail", "-")


def test_an_unknown_model_is_named(call):
    with pytest.raises(UnknownModel):
        call("--faster", "gpt-0")


def test_a_models_file_without_delays_asks_for_a_model(call, tmp_path, monkeypatch):
    row = 'family = "f"\ntier = "fast"\nchecked = false\ninput = "1"\noutput = "2"\n'
    (tmp_path / "mine.toml").write_text(f"[models.tiny]\n{row}")
    monkeypatch.setenv("VIGIL_MODELS_FILE", "mine.toml")
    with pytest.raises(CliError) as caught:
        call()
    assert "give --model" in str(caught.value)
    assert "50 jobs" in call("--model", "tiny", "--jobs", "50")
