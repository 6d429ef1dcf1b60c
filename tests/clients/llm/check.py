"""The `llm` command: a prompt, streamed or not, by a model of its extra-openai-models.yaml."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import KEY, MODEL, URL, feature, run

LLM = Path(sys.executable).parent / "llm"


def ask(*words: str) -> str:
    """Return what the command prints."""
    with tempfile.TemporaryDirectory() as folder:
        row = {"model_id": "vigil", "model_name": MODEL, "api_base": URL, "api_key_name": "vigil"}
        row["supports_tools"] = True
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps([row]))
        env = {"PATH": os.environ["PATH"], "LLM_USER_PATH": folder, "HOME": folder}  # noqa: TID251
        words = ("-m", "vigil", "--key", KEY, "--no-log", *words)
        done = subprocess.run([LLM, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@feature("prompt, streamed", needs="chat")
def prompt() -> None:
    assert len(ask("[[sim: normal tokens=30]] x").split()) == 30


@feature("prompt, not streamed", needs="chat")
def not_streamed() -> None:
    assert len(ask("--no-stream", "[[sim: normal tokens=30]] x").split()) == 30


@feature("tool", needs="chat")
def tool() -> None:
    assert ask("-T", "llm_version", "[[sim: tool_call]] x").strip()


run()
