"""What the commands say of a Redis that they can't use: one line, at once, with the cure and without the password."""

from __future__ import annotations

from pathlib import Path

import pytest
from vigil_process import run


@pytest.mark.parametrize(
    "words", [["api", "--port", "0"], ["worker"], ["keys", "list"], ["up"], ["audit", "verify"], ["doctor"]]
)
def test_every_command_ends_with_one_line_and_2(tmp_path: Path, words: list[str]) -> None:
    result = run(tmp_path, *words, VIGIL_REDIS_URL="redis://:hunter/2@db:6379/0")
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "VIGIL_REDIS_URL: the password" in result.stderr
    assert "%2F" in result.stderr
    assert "hunter" not in result.stderr + result.stdout
