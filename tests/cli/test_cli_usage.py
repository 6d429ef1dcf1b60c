"""Wrong usage and wrong settings: exit code 2, one clear line on stderr, nothing on stdout, never a traceback."""

from __future__ import annotations

import pytest
from vigil_process import Vigil, one_line

COMMANDS = ["up", "demo", "api", "worker", "simulator", "submit", "get", "wait", "watch", "list", "cancel", "retry"]
EVERY = [
    *COMMANDS,
    "rerun",
    "actions",
    "probe",
    "status",
    "support-packet",
    "apps",
    "pause",
    "resume",
    "cost",
    "doctor",
    "keys",
]


@pytest.mark.parametrize(
    "words",
    [*([one] for one in EVERY), *(["keys", w] for w in ("create", "list", "revoke"))],
    ids="-".join,
)
def test_every_command_explains_itself(vigil: Vigil, words: list[str]) -> None:
    result = vigil(*words, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: vigil" in result.stdout


def test_the_version_is_printed(vigil: Vigil) -> None:
    result = vigil("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, "vigil 0.1.0\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["get"], "Missing argument"),
        (["get", "a", "b"], "unexpected extra argument"),
        (["list", "--limit", "101"], "--limit"),
        (["list", "--status", "nope"], "unknown status 'nope'; known: queued"),
        (["submit", "x", "--on-delay", "hope"], "--on-delay"),
        (["submit", "x", "--param", "seed"], "--param takes KEY=VALUE"),
        (["submit", "x", "--param", "seed=abc"], "--param seed: the value is not JSON"),
        (["submit", "  "], "the prompt is empty"),
        (["submit", "x", "--file", "y"], "not both"),
        (["submit", "--file", "nowhere"], "nowhere can't be read: No such file"),
        (["cost"], "--input"),
        (["cost", "--input", "12Q"], "'12Q' is no number of tokens"),
        (["cost", "--input", "1", "--model", "gpt-0"], "unknown model 'gpt-0'; known: gpt-5.4-mini"),
        (["keys", "create"], "--app"),
        (["keys", "create", "--app", "a", "--scope", "root"], "unknown scope root; known: submit, read, audit, ops"),
        (["keys", "create", "--app", "a b"], "--app is a name"),
        (["simulator", "--speed", "0", "--port", "0"], "speed must be a number above 0"),
        (["simulator", "--mix", "nowhere", "--port", "0"], "nowhere"),
        (["up", "--speed", "-1"], "--speed is a number above 0"),
        (["up", "--port", "70000"], "--port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_exit_2(vigil: Vigil, words: list[str], message: str) -> None:
    result = vigil(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in one_line(result)


@pytest.mark.parametrize("command", ["api", "worker", "up"])
def test_all_faults_of_the_settings_are_reported_together(vigil: Vigil, command: str) -> None:
    result = vigil(
        command, VIGIL_PORT="http", VIGIL_MAX_JOBS="0", VIGIL_ENCRYPTION_KEYS="hunter2", SENTRY_TRACES_SAMPLE_RATE="7"
    )
    assert (result.returncode, result.stdout) == (2, "")
    line = one_line(result)
    for name in ("VIGIL_PORT", "VIGIL_MAX_JOBS", "VIGIL_ENCRYPTION_KEYS", "SENTRY_TRACES_SAMPLE_RATE"):
        assert name in line
    assert "hunter2" not in line


@pytest.mark.parametrize("secret", ["", "  ", "whsec_", "whsec_not!base64"])
def test_a_webhook_secret_that_anybody_could_sign_with_is_refused_at_the_start(vigil: Vigil, secret: str) -> None:
    result = vigil("api", OPENAI_WEBHOOK_SECRET=secret)
    assert (result.returncode, result.stdout) == (2, "")
    assert one_line(result).count("OPENAI_WEBHOOK_SECRET") == 1


def test_a_client_command_without_a_key_says_which_variable(vigil: Vigil) -> None:
    result = vigil("get", "job_1")
    assert result.returncode == 2
    assert "VIGIL_API_KEY" in one_line(result)


def test_a_client_command_without_a_server_says_how_to_start_one(vigil: Vigil) -> None:
    result = vigil("list", VIGIL_URL="http://127.0.0.1:1", VIGIL_API_KEY="vgl_x")
    assert result.returncode == 1
    assert "no Vigil answers at http://127.0.0.1:1; start one with `vigil up`" in one_line(result)


def test_a_client_command_checks_its_address(vigil: Vigil) -> None:
    result = vigil("list", VIGIL_URL="example.com", VIGIL_API_KEY="vgl_x")
    assert result.returncode == 2
    assert "VIGIL_URL must be an http:// or https:// address" in one_line(result)


def test_a_group_without_a_command_says_what_to_do(vigil: Vigil) -> None:
    result = vigil("keys")
    assert result.returncode == 2
    assert "vigil keys --help" in one_line(result)
