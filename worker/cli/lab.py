"""`vigil lab`: what other delay rules would have done to made-up or recorded jobs. Offline; thin over worker.lab."""

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

from worker.cli.errors import USAGE, CliError
from worker.cli.rendering import coloured, print_columns
from worker.jobs.catalogue import Catalogue, dollars
from worker.jobs.spec import Action
from worker.lab import chart, evaluate, synthetic, trails
from worker.lab.model import ACTIONS, SILENCE, THRESHOLDS, BadTrail, LabCases, PolicyResult
from worker.safety.policy import POLICY_VERSION
from worker.settings_loader import load

_AFTER = ",".join(f"{threshold:g}" for threshold in THRESHOLDS)
_MOST_SECONDS = 31_536_000.0
_HEAD = (
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
_LEFT_OUT = {
    "cut_short": "stopped before their own end",
    "failed": "failed",
    "unfinished": "still running",
    "not_started": "never started",
}


def lab(
    jobs: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many made-up jobs.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same jobs.")] = 1,
    trail: Annotated[Path | None, typer.Option(help="Replay an audit export (NDJSON) instead; - is stdin.")] = None,
    action: Annotated[list[str] | None, typer.Option(help="Only this action; may be repeated.")] = None,
    after: Annotated[str, typer.Option(help="Thresholds in seconds, comma-separated.")] = _AFTER,
    silence: Annotated[float, typer.Option(min=0, max=_MOST_SECONDS, help="silence_seconds; 0 = never.")] = SILENCE,
    model: Annotated[str | None, typer.Option(help="The model that made-up jobs ask for.")] = None,
    faster: Annotated[str | None, typer.Option(help="The delay rule's own model, as in on_delay.model.")] = None,
    accept: Annotated[float, typer.Option(min=0, max=1, help="The share of apps that accept an offer.")] = 0.0,
    faster_takes: Annotated[
        float, typer.Option(min=0.01, max=10, help="With --trail: a faster model's part of the original's time.")
    ] = 0.4,
    chart_file: Annotated[Path | None, typer.Option("--chart", help="Write an SVG chart to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; money as decimal strings.")] = False,
) -> None:
    """Compare delay rules on made-up or past jobs. Tells waiting, substitution and cost; calls nobody."""
    catalogue = load().catalogue()
    actions, thresholds = _actions(action), _thresholds(after)
    for name in (faster, model):
        if name is not None:
            catalogue.get(name)
    cases = _read(trail, seed, faster_takes) if trail else _made_up(jobs, seed, model, catalogue)
    if not cases.cases:
        raise CliError(f"{cases.source}: no job in it can be replayed: {_left_out(cases)}", USAGE)
    rows = evaluate.grid(cases.cases, catalogue, actions, thresholds, silence, model=faster, accept=accept)
    if chart_file is not None:
        _write(chart_file, chart.draw(rows, _subtitle(cases, silence, accept)))
    if as_json:
        print(json.dumps(_json(rows, cases, accept), indent=2))
        return
    print(_subtitle(cases, silence, accept))
    _show(rows)
    print("P50, P95: seconds until the first usable answer, a draft counts. FINAL P95: until the final one.")
    print("WASTED, EXTRA: US$ per 1,000 jobs for undelivered answers, and beyond plain waiting. Blocks stay blocks.")
    if cases.left_out:
        print(f"Left out: {_left_out(cases)}.")
    if chart_file is not None:
        print(f"Chart: {chart_file}")


def register(app: typer.Typer) -> None:
    """Put the command on the app."""
    app.command()(lab)


def _actions(names: list[str] | None) -> list[Action]:
    for name in names or ():
        if name not in ACTIONS:
            raise CliError(f"--action {name!r} is none of {', '.join(ACTIONS)}", USAGE)
    return [cast("Action", name) for name in dict.fromkeys(names)] if names else list(ACTIONS)


def _thresholds(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(found) > 100 or not all(0 <= one <= _MOST_SECONDS for one in found):  # noqa: PLR2004
        raise CliError(f"--after {text!r} is no list of seconds; write 15,30,45", USAGE)
    return sorted(set(found))


def _made_up(jobs: int, seed: int, model: str | None, catalogue: Catalogue) -> LabCases:
    asked = catalogue.get(model).id if model else synthetic.delayed_model(catalogue)
    if asked is None:
        raise CliError("models.toml has no checked model with a faster one; say --model", USAGE)
    return synthetic.draw(jobs, seed, asked, catalogue.faster(asked))


def _read(path: Path, seed: int, faster_takes: float) -> LabCases:
    name = "stdin" if str(path) == "-" else str(path).encode("utf-8", "replace").decode()
    try:
        if name == "stdin":
            return trails.read(sys.stdin, name, seed=seed, faster_takes=faster_takes)
        with path.open(encoding="utf-8-sig") as lines:
            return trails.read(lines, name, seed=seed, faster_takes=faster_takes)
    except BadTrail as error:
        raise CliError(str(error), USAGE) from None
    except OSError as error:
        raise CliError(f"{name} can't be read ({error.strerror})", USAGE) from None
    except UnicodeDecodeError:
        raise CliError(f"{name} is not UTF-8 text", USAGE) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{path} can't be written ({error.strerror})", USAGE) from None


def _subtitle(cases: LabCases, silence: float, accept: float) -> str:
    quiet = f"silence counts after {silence:g} s" if silence else "silence never counts"
    jobs = "1 job" if len(cases.cases) == 1 else f"{len(cases.cases):,} jobs"
    return f"{jobs} ({cases.source}); {quiet}; {accept:.0%} of offers accepted"


def _left_out(cases: LabCases) -> str:
    return ", ".join(f"{number:,} {_LEFT_OUT[why]}" for why, number in cases.left_out)


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
    console = Console(file=sys.stdout, no_color=not coloured(sys.stdout), highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, head in enumerate(_HEAD):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for number, line in enumerate(cells):
        table.add_row(*line, end_section=number + 1 == len(cells) or cells[number + 1][0] != line[0])
    needed = console.measure(table, options=console.options.update(width=1000)).maximum
    if sys.stdout.isatty() and needed <= console.width:
        console.print(table)
    else:  # a pipe, or a terminal in which rich would cut numbers off
        print_columns(_HEAD, cells, right=True)


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
