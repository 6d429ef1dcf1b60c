"""All benches, one after another, at sizes that take some minutes in all; then a summary with the targets.

    python ops/bench/run.py [--only pickup,submit] [--json]

Exit code 0 whatever the figures are (a busy machine is no failure), 1 when a bench could not be run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from report import Figure, Report

_HERE = Path(__file__).resolve().parent
_STREAM_LINE = re.compile(r"^(\w+)\s+([\d.]+) us CPU per delta\s+([\d.]+) x", re.MULTILINE)
_SCALE_LINE = re.compile(r"^  (\S.*?) +([\d.]+) +([\d.]+) +([\d.]+)(?:  over .*)?$", re.MULTILINE)


def _ours(out: str) -> Report:
    result = json.loads(out)
    return Report(result["bench"], result["lines"], [Figure(**figure) for figure in result["figures"]])


def _stream(out: str) -> Report:
    figures = []
    for name, cost, ratio in _STREAM_LINE.findall(out):
        if name != "typed":
            figures.append(Figure.at_most(f"CPU per streamed delta, {name}", float(cost), 65, "us"))
            figures.append(Figure.at_least(f"CPU per streamed delta, typed SDK / {name}", float(ratio), 4, "times"))
    return Report("stream_cpu", out.splitlines(), figures)


def _scale(out: str) -> Report:
    rows = {name: float(ratio) for name, _, _, ratio in _SCALE_LINE.findall(out)}
    worst = max(rows, key=lambda name: rows[name], default="")
    figures = [Figure.at_most(f"many / few settled jobs, slowest: {worst}", rows[worst], 1.3, "times")] if rows else []
    return Report("store_scale", out.splitlines(), figures)


@dataclass(frozen=True)
class Bench:
    """A script, its sizes, how long it may take, how its words are read."""

    script: str
    arguments: tuple[str, ...]
    seconds: float
    read: Callable[[str], Report]


BENCHES = {
    "pickup": Bench("pickup.py", ("--jobs", "100", "--reference", "60", "--json"), 120, _ours),
    "stream_cpu": Bench("stream_cpu.py", ("--seconds", "8"), 90, _stream),
    "store_scale": Bench("store_scale.py", ("--many", "10000", "--rounds", "100"), 120, _scale),
    "fairness": Bench("fairness.py", ("--json",), 90, _ours),
    "audit": Bench("audit.py", ("--jobs", "5000", "--json"), 90, _ours),
    "watchers": Bench("watchers.py", ("--seconds", "5", "--json"), 150, _ours),
    "submit": Bench("submit.py", ("--rounds", "9", "--seconds", "2", "--json"), 150, _ours),
    "many_streams": Bench("many_streams.py", ("--seconds", "15", "--silent", "1000", "--json"), 300, _ours),
    "workers": Bench("workers.py", ("--jobs", "200", "--slots", "10", "--json"), 240, _ours),
}


def _run(bench: Bench) -> Report:
    """What a bench has to say; a figure-less report with its last words when it broke or took too long."""
    words = [sys.executable, str(_HERE / bench.script), *bench.arguments]
    process = subprocess.Popen(  # noqa: S603  our own scripts
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=bench.seconds)
    except BaseException as error:
        _end(process)
        if isinstance(error, subprocess.TimeoutExpired):
            return Report(bench.script, [f"took more than {bench.seconds:g} s"])
        raise
    try:
        report = bench.read(out)
    except (ValueError, KeyError, TypeError):
        report = Report(bench.script, out.splitlines())
    if not report.figures:
        report.lines += err.splitlines()[-12:]
    return report


def _end(process: subprocess.Popen[str]) -> None:
    """The session that we gave the bench, which nobody else is in; until it is waited for, its id is surely ours."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BENCHES), help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in BENCHES]:
        parser.error(f"there is no bench {', '.join(unknown)}; known: {', '.join(BENCHES)}")
    reports, about = dict[str, Report](), sys.stderr if args.json else sys.stdout
    for name in names:
        if not (_HERE / BENCHES[name].script).exists():
            continue
        load, began = os.getloadavg()[0], time.monotonic()
        print(f"\n== {name} (load {load:.1f} on {os.cpu_count()} CPUs)", file=about, flush=True)
        reports[name] = _run(BENCHES[name])
        print("\n".join(reports[name].lines), file=about)
        print(f"   {time.monotonic() - began:.0f} s", file=about, flush=True)
    if args.json:
        print(json.dumps({name: asdict(report) for name, report in reports.items()}, indent=2))
    else:
        print("\n== summary")
        for name, report in reports.items():
            print("\n".join(figure.line() for figure in report.figures) or f"{name}: no figures")
    return 0 if all(report.figures for report in reports.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
