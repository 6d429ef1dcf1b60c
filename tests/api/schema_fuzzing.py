"""schemathesis against a complete Vigil on real sockets, checked by the document that the API serves.

By hand, for longer: `python tests/api/schema_fuzzing.py --seconds 900 [--phases stateful]`; it prints where each
internal error was raised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from api_server import running  # noqa: E402
from arq.connections import ArqRedis  # noqa: E402
from in_process import LIMIT, Stage  # noqa: E402

from api.runtime import store_deadline  # noqa: E402
from worker.clock import Clock  # noqa: E402
from worker.embedded import EmbeddedValkey  # noqa: E402
from worker.settings import Settings  # noqa: E402
from worker.store.connection.pool import connect  # noqa: E402
from worker.telemetry.internal_errors import add_capture  # noqa: E402

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
)
PHASES = "examples,coverage,fuzzing,stateful"
CONFIG = f"""
[checks]
enabled = false
{"".join(f"{check}.enabled = true{chr(10)}" for check in CHECKS)}
[[operations]]
include-path-regex = "^/v1/jobs/"
checks.use_after_free.enabled = false
"""
"""DELETE of a settled job removes its content only: the record stays, which is no error."""


@dataclass
class Fuzzed:
    """How a run went: its exit code and what it printed."""

    code: int
    output: str

    @property
    def brief(self) -> str:
        """What was printed, in lines that a person can read."""
        return "\n".join(line[:200] for line in self.output.splitlines())


async def fuzz(settings: Settings, redis: ArqRedis, url: str, seed: int, *more: str) -> Fuzzed:
    """One run over every operation of the document, with a key that may do everything."""
    async with Stage(redis, url, speed=200.0) as stage, running(settings, redis, Clock()) as api:
        await stage.worker()
        document = settings.data_dir / "openapi.json"  # schemathesis waits ten seconds for it, which can be too short
        async with await api.client() as client:
            document.write_bytes((await client.get("/openapi.json", timeout=LIMIT)).content)
        config = settings.data_dir / "schemathesis.toml"
        config.write_text(CONFIG)
        words = [
            *("--config-file", str(config)),
            *("--url", api.base_url, str(document), f"--header=Authorization: Bearer {await api.key()}"),
            *("--phases", PHASES, "--seed", str(seed)),
            *("--request-timeout", str(LIMIT)),
            *("--generation-database", "none", "--no-color", "--continue-on-failure", "--suppress-health-check", "all"),
            *more,
        ]
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("schemathesis"),
            *words[:2],
            "run",
            *words[2:],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=settings.data_dir,
        )
        output, _ = await process.communicate()
        return Fuzzed(process.returncode or 0, output.decode(errors="replace"))


def _print_error(_: str, error: BaseException, __: dict[str, object]) -> None:
    traceback.print_exception(error)


def _wait_longer_for_the_store() -> None:
    """Let the API wait 40 times as long for Redis, so that a busy machine causes no 503."""
    store_deadline.StoreTimeout = lambda seconds: asyncio.timeout(40 * seconds)  # type: ignore[assignment]


async def _by_hand(seed: int, seconds: float, more: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedValkey(Path(folder)) as server:
            redis = connect(server.url)
            given = {"redis_url": server.url, "data_dir": Path(folder), "allow_unknown_models": True}
            settings = Settings(_env_file=None, **given)  # type: ignore[call-arg]
            done = await fuzz(
                settings,
                redis,
                server.url,
                seed,
                "--max-time",
                str(round(seconds)),
                "--exclude-path",
                "/v1/pause",
                *more,
            )
            await redis.aclose()
    print(done.brief)
    return done.code


if __name__ == "__main__":
    add_capture(_print_error)
    _wait_longer_for_the_store()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300)
    given, others = parser.parse_known_args()
    sys.exit(asyncio.run(_by_hand(given.seed, given.seconds, others)))
