"""`vigil submit --dry-run` prices a job and creates none; SIGHUP makes the API read its models file anew."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from vigil_process import VIGIL, Up, environment, free_port, read_until
from waiting import LIMIT

MODEL = '[models.tiny]\n[[models.tiny.prices]]\nfrom = 2026-01-01\ninput = "1"\noutput = "2"\n'


def test_a_dry_run_prices_the_job_and_creates_none(up: Up) -> None:
    before = up.json("list")["data"]
    output = up("submit", "--dry-run", "hello", "--max-cost-usd", "0.01").stdout
    assert "cost      $0.000008 to $0.0" in output
    assert "prices since 2026-08-21" in output
    assert "fallback  gpt-5.5" in output
    assert up.json("list")["data"] == before
    over = up("submit", "--dry-run", "hello", "--max-cost-usd", "0")
    assert (over.returncode, "cost_limit" in over.stdout) == (1, True)


def test_a_hangup_signal_reads_the_models_file_and_stops_nothing(tmp_path: Path, valkey_url: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(MODEL)
    given = {"VIGIL_REDIS_URL": valkey_url, "VIGIL_MODELS_FILE": str(file), "VIGIL_LOG_FORMAT": "json"}
    process = subprocess.Popen(
        [VIGIL, "api", "--port", str(free_port())],
        cwd=tmp_path,
        env=environment(tmp_path, **given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        read_until(process, "api.ready")
        file.write_text(MODEL + "[models.more]\n")
        process.send_signal(signal.SIGHUP)
        read_until(process, "models.reloaded")
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        process.kill()
        process.communicate()
