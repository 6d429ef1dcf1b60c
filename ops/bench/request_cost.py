"""The worst requests for every route: how long is the loop of the API blocked, and by which one.

    python ops/bench/request_cost.py [--bytes 1048576] [--route /v1/jobs] [--everything] [--all] [--json]

Sends every body, query, path and header of `tests/api/worst_requests.py` to every route of the app (in the place of
each field only a few values; with `--everything` all of them, which takes half an hour), and prints for each route the
request that delayed a timer most. "turn" is the CPU of the longest turn of the loop, "lag" how late a timer
was: that is more when another thread held the interpreter, and on a busy machine. A lag over the target is measured
again, and the smaller one counts. Exits 1 if one is still over it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / name) for name in ("", "api")]

from measured_api import Cost, MeasuredApi, measured_api  # noqa: E402
from report import Figure, Report  # noqa: E402
from worst_requests import VALUES, WorstRequest, definitions_of, requests_for, target_of  # noqa: E402

from worker.embedded import EmbeddedValkey  # noqa: E402
from worker.settings import Settings  # noqa: E402

TARGET_MS = 50.0
IN_FIELDS = ("many keys", "empty strings", "exponents", "a long string")
_MIB = 2**20
_REPEATS = 3


def measure(api: MeasuredApi, request: WorstRequest, target_ms: float) -> Cost:
    """Return what the request costs; of a lag over the target, the smallest of a few tries."""
    cost = api.send(request)
    for _ in range(_REPEATS):
        if cost.lag * 1000 <= target_ms:
            break
        cost = min(cost, api.send(request), key=lambda one: one.lag)
    return cost


def run(settings: Settings, size: int, only: str, in_fields: Iterable[str], *, every: bool) -> Report:
    """Return the table."""
    target_ms = TARGET_MS * max(1.0, size / _MIB)
    lines, worst = [f"{'route':52} {'lag ms':>7} {'turn ms':>8} {'CPU ms':>7} {'status':>6}  worst request"], 0.0
    with measured_api(settings) as api:
        api.loop.call_soon_threadsafe(api.loop.watch_lag)
        named, ids = definitions_of(api.routes), api.ids()
        for route in api.routes:
            if only and only not in route.path:
                continue
            requests = requests_for(route, target_of(route, ids), size, named, in_fields)
            rows = [(measure(api, request, target_ms), request.name) for request in requests]
            rows.sort(key=lambda row: -row[0].lag)
            worst = max(worst, rows[0][0].lag * 1000)
            for cost, name in rows if every else rows[:1]:
                figures = f"{cost.lag * 1000:7.1f} {cost.turn * 1000:8.1f} {cost.total * 1000:7.1f} {cost.status:6}"
                lines.append(f"{route.method + ' ' + route.path:52} {figures}  {name}")
                print(lines[-1], file=sys.stderr, flush=True)
    return Report(
        "request_cost", lines, [Figure.at_most("longest lag of the loop by one request", worst, target_ms, "ms")]
    )


def main() -> int:
    """Run the bench; 1 if a lag was over the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=_MIB, help="the size of the bodies")
    parser.add_argument("--route", default="", help="only routes whose path contains this")
    parser.add_argument("--everything", action="store_true", help="send every value in the place of every field")
    parser.add_argument("--all", action="store_true", help="print every request, not only the worst of each route")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder))
        asyncio.run(server.start())
        try:
            some = {"redis_url": server.url, "data_dir": Path(folder), "max_body_bytes": max(given.bytes + 4096, _MIB)}
            settings = Settings(_env_file=None, **some)  # type: ignore[call-arg]
            report = run(settings, given.bytes, given.route, VALUES if given.everything else IN_FIELDS, every=given.all)
        finally:
            asyncio.run(server.stop())
    report.show(as_json=given.json)
    return 0 if all(figure.met for figure in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
