"""`vigil lab`: simulates delay rules on synthetic or recorded jobs, offline. The simulation is in `worker.lab`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import print_columns, use_colours
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue, dollars
from worker.jobs.spec import Action
from worker.lab import chart, evaluate, synthetic, trails
from worker.lab.model import ACTIONS, SILENCE, THRESHOLDS, BadTrail, LabCases, PolicyResult
from worker.safety.policy import POLICY_VERSION
from worker.settings_loader import load

_AFTER = ",".join(f"{threshold:g}" for threshold in THRESHOLDS)
_MAX_SECONDS = 31_536_000.0
_COLUMNS = (
    "ACTION",
    "AFTER",
    "P50",
    "P95",
    "FINAL P95",
    "SUBSTITUTED",
    "OFFERED",
    "DRAFTED",
    "BLOCKED",
    "WASTED",
    "EXTRA",
)
_SKIP_REASONS = {
    "cut_short": "stopped before their own end",
    "failed": "failed",
    "unfinished": "still running",
    "not_started": "never started",
}


def lab(
    jobs: Annotated[int, typer.Option(min=1, max=1_000_000, help="The number of synthetic jobs.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same jobs.")] = 1,
    trail: Annotated[Path | None, typer.Option(help="Replay an audit export (NDJSON) instead; - reads stdin.")] = None,
    action: Annotated[list[str] | None, typer.Option(help="Only this action; may be repeated.")] = None,
    after: Annotated[str, typer.Option(help="Thresholds in seconds, comma-separated.")] = _AFTER,
    silence: Annotated[float, typer.Option(min=0, max=_MAX_SECONDS, help="silence_seconds; 0 = never.")] = SILENCE,
    model: Annotated[str | None, typer.Option(help="The model of the synthetic jobs.")] = None,
    faster: Annotated[str | None, typer.Option(help="The delay rule's own model, as in on_delay.model.")] = None,
    accept: Annotated[float, typer.Option(min=0, max=1, help="The share of apps that accept an offer.")] = 0.0,
    faster_takes: Annotated[
        float,
        typer.Option(min=0.01, max=10, help="With --trail: the faster model's time as a share of the original's."),
    ] = 0.4,
    chart_file: Annotated[Path | None, typer.Option("--chart", help="Write an SVG chart to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """Compare delay rules offline. Takes past or synthetic jobs; prints waiting time, substitutions and cost."""
    catalogue = load().catalogue().as_of(Clock().now())
    actions, thresholds = _actions(action), _thresholds(after)
    for name in (faster, model):
        if name is not None:
            catalogue.get(name)
    cases = _read(trail, seed, faster_takes) if trail else _draw_jobs(jobs, seed, model, catalogue)
    if not cases.cases:
        raise CliError(f"{cases.source}: none of its jobs can be replayed: {_skipped(cases)}", EXIT_USAGE)
    rows = evaluate.grid(cases.cases, catalogue, actions, thresholds, silence, model=faster, accept=accept)
    if chart_file is not None:
        _write(chart_file, chart.draw(rows, _subtitle(cases, silence, accept)))
    if as_json:
        print(json.dumps(_json(rows, cases, accept), indent=2))
        return
    print(_subtitle(cases, silence, accept))
    _show(rows)
    print("P50, P95: seconds to the first usable answer, drafts included. FINAL P95: to the final answer.")
    print("WASTED: US$ per 1,000 jobs for undelivered answers. EXTRA: US$ per 1,000 jobs above plain waiting.")
    if cases.left_out:
        print(f"Left out: {_skipped(cases)}.")
    if chart_file is not None:
        print(f"Chart: {chart_file}")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(lab)


def _actions(names: list[str] | None) -> list[Action]:
    for name in names or ():
        if name not in ACTIONS:
            raise CliError(f"--action {name!r} is unknown; known: {', '.join(ACTIONS)}", EXIT_USAGE)
    return [cast("Action", name) for name in dict.fromkeys(names)] if names else list(ACTIONS)


def _thresholds(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(found) > 100 or not all(0 <= one <= _MAX_SECONDS for one in found):  # noqa: PLR2004
        raise CliError(f"--after {text!r} is no list of seconds; write it as 15,30,45", EXIT_USAGE)
    return sorted(set(found))


def _draw_jobs(jobs: int, seed: int, model: str | None, catalogue: Catalogue) -> LabCases:
    requested = catalogue.get(model).id if model else synthetic.delayed_model(catalogue)
    if requested is None:
        raise CliError("models.toml has no checked model with a faster one; give --model", EXIT_USAGE)
    return synthetic.draw(jobs, seed, requested, catalogue.faster(requested))


def _read(path: Path, seed: int, faster_takes: float) -> LabCases:
    name = "stdin" if str(path) == "-" else str(path).encode("utf-8", "replace").decode()
    try:
        if name == "stdin":
            return trails.read(sys.stdin, name, seed=seed, faster_takes=faster_takes)
        with path.open(encoding="utf-8-sig") as lines:
            return trails.read(lines, name, seed=seed, faster_takes=faster_takes)
    except BadTrail as error:
        raise CliError(str(error), EXIT_USAGE) from None
    except OSError as error:
        raise CliError(f"{name} can't be read ({error.strerror})", EXIT_USAGE) from None
    except UnicodeDecodeError:
        raise CliError(f"{name} is not UTF-8 text", EXIT_USAGE) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path} can't be written ({error.strerror})", EXIT_USAGE) from None


def _subtitle(cases: LabCases, silence: float, accept: float) -> str:
    silence_text = f"silence counts as a check after {silence:g} s" if silence else "silence never counts"
    jobs = "1 job" if len(cases.cases) == 1 else f"{len(cases.cases):,} jobs"
    return f"{jobs} ({cases.source}); {silence_text}; {accept:.0%} of offers accepted"


def _skipped(cases: LabCases) -> str:
    return ", ".join(f"{number:,} {_SKIP_REASONS[why]}" for why, number in cases.left_out)


def _per_thousand(row: PolicyResult, money: object) -> str:
    return "-" if money is None else f"{float(str(money)) / row.jobs * 1000:,.2f}"


def _show(rows: Sequence[PolicyResult]) -> None:
    cells = [
        (
            r.action,
            f"{r.after_seconds:g} s",
            *(f"{value:.1f}" for value in (r.wait_p50, r.wait_p95, r.settled_p95)),
            *(f"{share:.1%}" for share in (r.substituted, r.offered, r.drafted, r.blocked)),
            _per_thousand(r, r.wasted),
            _per_thousand(r, r.extra),
        )
        for r in rows
    ]
    console = Console(file=sys.stdout, no_color=not use_colours(sys.stdout), highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(_COLUMNS):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for number, line in enumerate(cells):
        table.add_row(*line, end_section=number + 1 == len(cells) or cells[number + 1][0] != line[0])
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    if sys.stdout.isatty() and needed <= console.width:
        console.print(table)
    else:  # a pipe, or a terminal so narrow that rich would cut off numbers
        print_columns(_COLUMNS, cells, right=True)


def _json(rows: Sequence[PolicyResult], cases: LabCases, accept: float) -> dict[str, Any]:
    policies = []
    for row in rows:
        body = {k: round(v, 6) if isinstance(v, float) else v for k, v in dataclasses.asdict(row).items()}
        for name, value in (("wasted", row.wasted), ("extra", row.extra)):
            body[name] = None if value is None else dollars(value)
        policies.append(body)
    return {
        "source": cases.source,
        "jobs": len(cases.cases),
        "left_out": dict(cases.left_out),
        "accept": accept,
        "currency": "USD",
        "policy_version": POLICY_VERSION,
        "policies": policies,
    }
