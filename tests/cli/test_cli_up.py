"""`vigil up` and the commands that speak to it: all real, one process with Valkey, API, worker and simulator."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import termios
import time
from pathlib import Path

import httpx2
import pytest
from vigil_process import VIGIL, Up, environment, free_port, one_line, read_until, run, start_up
from waiting import LIMIT

CHECKED = "[[sim: check_then_clear hold=15]] Why is the sky blue?"
BLOCKED = "[[sim: check_then_block hold=5]] x"


def on_a_terminal(up: Up, *words: str, columns: int = 80, **env: str) -> tuple[str, int]:
    """What a person sees on a terminal of this width, and the exit code."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [VIGIL, *words],
        cwd=up.folder,
        env=environment(up.folder, TERM="xterm-256color", **env),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        output = b""
        try:
            while piece := os.read(controller, 65536):
                output += piece
        except OSError:
            pass  # the other end is closed: how a terminal says that nobody writes any more
        finally:
            os.close(controller)
    return output.decode(), process.returncode


def test_it_says_what_a_newcomer_needs(up: Up) -> None:
    assert f"Vigil answers on {up.url}" in up.output
    assert re.search(r"key +vgl_\w{38}\n", up.output)
    assert "simulator on http://127.0.0.1:" in up.output
    assert "set OPENAI_API_KEY for the real one" in up.output
    assert "every write is on disk before the answer" in up.output


def test_the_curl_line_works_as_printed(up: Up) -> None:
    found = re.search(r"( {2}curl .*?'\n)", up.output, re.DOTALL)
    assert found
    words = found.group(1).replace("hold=5", "hold=1")
    answer = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True, timeout=LIMIT)
    assert json.loads(answer.stdout)["status"] == "completed"


def test_url_and_key_are_kept_for_this_user_alone(up: Up) -> None:
    path = up.folder / ".vigil" / "cli.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"url": up.url, "key": up.key()}
    assert up.key() in up.output


def test_submit_prints_the_id_alone_so_that_it_can_be_used(up: Up) -> None:
    submitted = up("submit", "hello")
    assert submitted.returncode == 0
    assert re.fullmatch(r"job_\w+\n", submitted.stdout)
    assert submitted.stderr == ""
    waited = up("wait", submitted.stdout.strip())
    assert waited.returncode == 0
    assert len(waited.stdout.split()) > 5
    assert "completed" in waited.stderr


@pytest.mark.parametrize("words", [["submit", "--wait"], ["submit", "--wait", "-"], ["submit", "-w", "--file", "-"]])
def test_a_prompt_can_be_piped_in(up: Up, words: list[str]) -> None:
    result = up(*words, text="[[sim: list]]\nwhich are there?")
    assert result.returncode == 0
    assert "check_then_clear: " in result.stdout


def test_a_prompt_can_come_from_a_file(up: Up) -> None:
    (up.folder / "prompt.txt").write_text("[[sim: list]]")
    assert "check_then_clear: " in up("submit", "--wait", "--file", "prompt.txt").stdout


def test_all_that_was_asked_for_arrives(up: Up) -> None:
    words = ["--model", "gpt-5.6-terra", "--on-delay", "wait", "--after-seconds", "3", "--silence-seconds", "0"]
    words += ["--instructions", "Be brief.", "--param", "max_output_tokens=50", "--metadata", "ticket=A-17"]
    words += ["--end-user", "u1", "--idempotency-key", "once"]
    first = up.json("submit", "hello", *words)
    assert (first["requested_model"], first["metadata"]) == ("gpt-5.6-terra", {"ticket": "A-17"})
    assert up.json("submit", "hello", *words)["id"] == first["id"]
    other = up("submit", "something else", *words)
    assert other.returncode == 2
    assert "idempotency_key_reused" in one_line(other)


def test_a_checked_job_without_a_terminal_is_one_line_per_change(up: Up) -> None:
    result = up("submit", "--wait", CHECKED)
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    assert re.fullmatch(r"safety check running, \d:\d\d \(signalled: cyber\)", next(x for x in lines if "check" in x))
    assert lines[-1].startswith("completed after")
    assert len(lines) <= 6
    assert "\x1b" not in result.stderr


def test_a_block_exits_1_and_says_what_to_do(up: Up) -> None:
    result = up("submit", "--wait", BLOCKED)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.search(r"blocked after 0:\d\d: cyber \(cyber_policy\)\. \w+", result.stderr)
    job_id = up.json("list", "--status", "blocked", "--limit", "1")["data"][0]["id"]
    for command in ("wait", "watch"):
        assert up(command, job_id).returncode == 1
    assert up("get", job_id).returncode == 0


def test_watch_streams_the_text_and_only_the_text_to_a_pipe(up: Up) -> None:
    job = up.json("submit", CHECKED.replace("hold=15", "hold=60"))  # a busy machine is slow to begin watching
    watched = up("watch", job["id"])
    assert watched.returncode == 0
    assert watched.stdout == up.json("get", job["id"])["output_text"] + "\n"
    assert "safety check running" in watched.stderr


def test_watch_json_is_one_event_per_line(up: Up) -> None:
    job = up.json("submit", "hello")
    events = [json.loads(line) for line in up("watch", job["id"], "--json").stdout.splitlines()]
    numbered = [event for event in events if event["type"] != "job.output.delta"]
    assert [event["seq"] for event in numbered] == list(range(1, len(numbered) + 1))
    assert (numbered[0]["type"], numbered[-1]["type"]) == ("job.queued", "job.completed")
    text = "".join(event["data"]["delta"] for event in events if event["type"] == "job.output.delta")
    assert text == up.json("get", job["id"])["output_text"]


@pytest.mark.parametrize("no_colour", [True, False])
def test_a_narrow_terminal_gets_a_live_line_that_never_wraps(up: Up, no_colour: bool) -> None:
    output, code = on_a_terminal(
        up, "submit", "--wait", CHECKED, columns=40, **({"NO_COLOR": "1"} if no_colour else {})
    )
    assert code == 0
    live = [re.sub(r"\x1b\[\d+m", "", part) for part in output.split("\r\x1b[2K")[1:-1]]
    assert any("safety check running, 0:0" in line for line in live)
    assert max(map(len, live)) < 40
    assert bool(re.search(r"\x1b\[\d+m", output)) is not no_colour


def test_watch_on_a_terminal_shows_text_and_state_without_mixing_them(up: Up) -> None:
    job = up.json("submit", "[[sim: check_mid_output hold=10 tokens=30]] x")
    output, code = on_a_terminal(up, "watch", job["id"], NO_COLOR="1")
    assert code == 0
    text = "".join(
        part for part in output.replace("\r\n", "").split("\r\x1b[2K") if not re.match(r"queued|running|safe", part)
    )
    assert up.json("get", job["id"])["output_text"] in text


def test_get_and_list_are_for_reading(up: Up) -> None:
    up.json("submit", "--wait", "an older one")
    job = up.json("submit", "--wait", "hello")
    shown = up("get", job["id"]).stdout
    assert shown.startswith(f"{job['id']}  completed after ")
    assert job["output_text"] in shown
    listed = up("list", "--limit", "1")
    assert listed.stdout.splitlines()[0].split() == ["ID", "STATUS", "MODEL", "AGE", "COST"]
    assert "more: --cursor" in listed.stderr
    page = up.json("list", "--limit", "1")
    assert up.json("list", "--limit", "1", "--cursor", page["next_cursor"])["data"][0]["id"] != page["data"][0]["id"]


def test_cancel_ends_a_running_job_and_can_be_repeated(up: Up) -> None:
    job = up.json("submit", "[[sim: queued_forever]] x")
    assert up("cancel", job["id"]).returncode == 0
    waited = up("wait", job["id"])
    assert waited.returncode == 1
    assert waited.stderr.splitlines()[-1].startswith("cancelled")
    assert up("cancel", job["id"]).returncode == 0


def test_wait_ends_at_its_timeout_and_the_job_continues(up: Up) -> None:
    job = up.json("submit", "[[sim: queued_forever]] x")
    result = up("wait", job["id"], "--timeout", "0.3")
    assert result.returncode == 1
    assert f"{job['id']} is still " in result.stderr
    assert up("cancel", job["id"]).returncode == 0


def test_ctrl_c_leaves_the_job_alone(up: Up) -> None:
    job = up.json("submit", "[[sim: queued_forever]] x")
    with subprocess.Popen(
        [VIGIL, "wait", job["id"]],
        cwd=up.folder,
        env=environment(up.folder),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  a build in the background has none
    ) as waiting:
        assert waiting.stderr is not None
        waiting.stderr.readline()  # it has begun to wait
        waiting.send_signal(signal.SIGINT)
        _, output = waiting.communicate(timeout=LIMIT)
    assert waiting.returncode == 130
    assert f"the job continues; `vigil watch {job['id']}` follows it again" in output
    assert up.json("get", job["id"])["status"] in {"queued", "running", "checking"}
    up("cancel", job["id"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "job_nope"], 1, "not_found"),
        (["retry", "job_nope", "--model", "gpt-5.6-luna"], 1, "not_found"),
        (["submit", "x", "--model", "gpt-0"], 2, "known: gpt-5.4-mini, gpt-5.5, gpt-5.6-luna"),
        (["submit", "x", "--idempotency-key", "a b"], 2, "dempotency"),
        (["list", "--cursor", "nonsense"], 2, "cursor"),
    ],
)
def test_what_the_api_refuses_is_one_line(up: Up, words: list[str], code: int, message: str) -> None:
    result = up(*words)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in one_line(result)


def test_a_wrong_key_names_the_variable(up: Up) -> None:
    result = up("list", VIGIL_API_KEY="vgl_wrong")
    assert result.returncode == 2
    assert "doesn't know this API key (VIGIL_API_KEY)" in one_line(result)


def test_the_doctor_finds_a_running_vigil_in_order(up: Up) -> None:
    found = {check["name"]: check for check in up.json("doctor")["checks"]}
    for name in ("settings", "models", "redis", "persistence", "eviction", "clock", "api"):
        assert found[name]["state"] == "ok", found[name]
    assert found["provider"]["state"] == "warning"
    assert all(check["fix"] for check in found.values() if check["state"] != "ok")


def test_the_doctor_asks_the_provider_with_the_key(up: Up) -> None:
    simulator = re.search(r"simulator on (\S+/v1)", up.output)
    assert simulator
    result = up("doctor", "--json", OPENAI_API_KEY="sk-x", OPENAI_BASE_URL=simulator.group(1))
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert (result.returncode, found["provider"]["state"]) == (0, "ok")
    result = up("doctor", OPENAI_API_KEY="sk-x", OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert result.returncode == 1
    assert re.search(r"problem +provider +http://127.0.0.1:1/v1 can't be reached", result.stdout)


def test_a_taken_port_is_one_line(up: Up, tmp_path: Path) -> None:
    result = run(tmp_path, "up", "--port", up.url.rsplit(":", 1)[1])
    assert result.returncode == 1
    assert "is taken; choose another with --port" in one_line(result)


def ups(*folders: Path, ports: tuple[int, int]) -> list[subprocess.Popen[str]]:
    """Two that start at the same moment."""
    return [
        subprocess.Popen(
            [VIGIL, "up", "--port", str(port), "--speed", "10"],
            cwd=folder,
            env=environment(folder, VIGIL_DRAIN_SECONDS="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder, port in zip(folders, ports, strict=True)
    ]


def ended(*processes: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """What each had to say after SIGTERM."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    return [process.communicate(timeout=LIMIT) for process in processes]


def test_of_two_at_once_on_one_port_one_runs_and_one_says_what_to_do(tmp_path: Path) -> None:
    port = free_port()
    both = ups(tmp_path, tmp_path, ports=(port, port))
    try:
        while all(process.poll() is None for process in both):
            time.sleep(0.01)
        winner, loser = sorted(both, key=lambda process: process.poll() is not None)
        assert loser.returncode == 1
        output = read_until(winner, "Ctrl-C drains")
        assert f"http://127.0.0.1:{port}" in output
        assert run(tmp_path, "submit", "--wait", "still here?").returncode == 0
    finally:
        output_of = dict(zip(both, ended(*both), strict=True))
    out, err = output_of[loser]
    assert (out, err) == ("", f"vigil: port {port} on 127.0.0.1 is taken; choose another with --port\n")
    assert winner.returncode == 0


def test_two_in_one_folder_share_what_is_there_and_the_second_outlives_the_first(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    both = ups(tmp_path, tmp_path, ports=ports)
    try:
        for process in both:
            read_until(process, "Ctrl-C drains")
        ids = [
            run(tmp_path, "submit", "hello", VIGIL_URL=f"http://127.0.0.1:{port}", VIGIL_API_KEY=key(tmp_path)).stdout
            for port in ports
        ]
        ended(both[0])
        assert both[0].returncode == 0
        there = {"VIGIL_URL": f"http://127.0.0.1:{ports[1]}", "VIGIL_API_KEY": key(tmp_path)}
        for job_id in (*ids, run(tmp_path, "submit", "one more", **there).stdout):
            assert run(tmp_path, "wait", job_id.strip(), **there).returncode == 0
    finally:
        ended(*(process for process in both if process.poll() is None))
    assert both[1].returncode == 0


def key(folder: Path) -> str:
    return str(json.loads((folder / ".vigil" / "cli.json").read_text())["key"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_after_its_timeout_to_though_nobody_reads_what_it_says(tmp_path: Path, number: int) -> None:
    running = start_up(tmp_path, free_port())
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.process.send_signal(number)
    try:
        assert running.process.wait(LIMIT) == 0
    finally:
        running.process.kill()


def test_ctrl_c_drains_the_key_stays_and_jobs_survive(tmp_path: Path) -> None:
    port = free_port()
    first = start_up(tmp_path, port)
    try:
        job = first.json("submit", "[[sim: normal]] keep me")
        first("wait", job["id"])
        key = first.key()
    finally:
        first.process.send_signal(signal.SIGINT)
        output, _ = first.process.communicate(timeout=LIMIT)
    assert first.process.returncode == 130
    assert "draining" in output
    assert "Traceback" not in output
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(first.url + "/healthz")

    second = start_up(tmp_path, port)
    try:
        assert second.key() == key
        assert second.json("get", job["id"])["status"] == "completed"
    finally:
        second.process.send_signal(signal.SIGTERM)
        second.process.communicate(timeout=LIMIT)
    assert second.process.returncode == 0
