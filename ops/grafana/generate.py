"""Writes ops/grafana/vigil.json: the dashboard, from one table of panels, in Grafana's classic schema.

    python ops/grafana/generate.py            writes the file
    python ops/grafana/generate.py --check    says whether it is up to date (exit 1: no)

A test refuses a panel that asks for a metric which worker/telemetry/metrics.py doesn't have, and runs every query
against a real Prometheus. What is true of the whole comes from each API alike: `max` of it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("vigil.json")
RATE: Final = "$__rate_interval"
_WIDE: Final = 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its queries by legend, its unit in Grafana's words, its kind and width."""

    title: str
    says: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    more: dict[str, Any] = field(default_factory=dict)


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[{RATE}]))" if where else f"sum by ({by}) (rate({metric}[{RATE}]))"


def _quantiles(metric: str, where: str = "") -> dict[str, str]:
    of = f"{metric}_bucket{{{where}}}" if where else f"{metric}_bucket"
    return {
        f"p{share * 100:g}": f"histogram_quantile({share}, sum by (le) (rate({of}[{RATE}])))" for share in (0.5, 0.95)
    }


def _stat(title: str, says: str, query: str, unit: str = "short", red: float | None = None) -> Panel:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if red is not None:
        steps.append({"color": "red", "value": red})
    return Panel(title, says, {"": query}, unit, "stat", 4, {"thresholds": {"mode": "absolute", "steps": steps}})


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        _stat("Waiting", "Jobs ready to run.", 'max(vigil_queue_depth{state="queued"})'),
        _stat("Oldest", "Age of the oldest of them.", "max(vigil_queue_oldest_age_seconds)", "s", 300),
        _stat("Running", "Jobs that run.", 'sum(max by (state) (vigil_queue_depth{state=~"running|checking"}))'),
        _stat("Being checked", "Jobs held by a safety check.", 'max(vigil_queue_depth{state="checking"})'),
        _stat("Workers", "With a heartbeat within a minute.", "max(vigil_workers_alive)"),
        _stat("Spent in a day", "US dollars.", "sum(increase(vigil_cost_usd_total[1d]))", "currencyUSD"),
    ),
    "Jobs": (
        Panel("Queue", "Jobs that are not settled.", {"{{state}}": "max by (state) (vigil_queue_depth)"}),
        Panel(
            "Submitted and settled",
            "Per second, by terminal status.",
            {"submitted": f"sum(rate(vigil_jobs_submitted_total[{RATE}]))"}
            | {"{{status}}": _rate("vigil_jobs_finished_total", "status")},
            "ops",
        ),
        Panel("Slots", "Taken, and there.", {
            "taken": "sum(vigil_worker_inflight)", "there": "max(vigil_worker_slots_alive)",
        }),
        Panel("Wait", "From submission to the first start.", _quantiles("vigil_job_wait_seconds"), "s"),
        Panel("Run", "From the first start to the end.", _quantiles("vigil_job_run_seconds"), "s"),
        Panel("Handed over and rescued", "At shutdowns, and from dead workers.", {
            "interrupted": f"sum(rate(vigil_jobs_interrupted_total[{RATE}]))",
            "rescued": f"sum(rate(vigil_jobs_rescued_total[{RATE}]))",
            "held": f"sum(rate(vigil_jobs_held_total[{RATE}]))",
            "lease lost": f"sum(rate(vigil_lease_lost_total[{RATE}]))",
        }, "ops"),
    ),
    "Safety": (
        Panel("Checks", "That began, by evidence: signalled by the provider, or suspected from silence.", {
            "{{model}} {{evidence}}": _rate("vigil_checks_total", "model, evidence"),
        }, "ops"),
        Panel("Length of checks", "Signalled ones.", _quantiles("vigil_check_seconds", 'evidence="signalled"'), "s"),
        Panel("Attempts that are checked", "Share of attempts that met a signalled check, by model.", {
            "{{model}}": _rate("vigil_checks_total", "model", 'evidence="signalled"')
            + " / " + _rate("vigil_attempts_total", "model"),
        }, "percentunit"),
        Panel("Blocks", "Withheld content, by code.", {
            "{{category}} {{code}}": _rate("vigil_blocks_total", "category, code"),
        }, "ops"),
        Panel("Substitutions", "Another model took over: why, and who decided.", {
            "{{reason}} ({{decided_by}})": _rate("vigil_substitutions_total", "reason, decided_by"),
        }, "ops"),
        Panel("Requested and served", "Completed jobs.", {
            "{{requested}} by {{served}}": _rate("vigil_model_requested_served_total", "requested, served"),
        }, "ops"),
        Panel("Submits refused", "A quota of the app, or the memory of Redis, is used up.", {
            "{{limit}}": _rate("vigil_submits_refused_total", "limit"),
        }, "ops"),
        Panel("Refusals", "Completed jobs that the model itself declined.", {
            "{{model}}": _rate("vigil_jobs_refused_total", "model"),
        }, "ops"),
        Panel("Account", "The state that the provider's account is in.", {
            "{{provider_account}} {{account}}": "max by (provider_account, account) (vigil_account_state)",
        }),
        Panel("Fallbacks", "After an access denial.", {
            "{{requested}} to {{served}}": _rate("vigil_fallbacks_total", "requested, served"),
        }, "ops"),
    ),
    "Provider": (
        Panel("Attempts", "Upstream calls that ended, by outcome.", {
            "{{outcome}}": _rate("vigil_attempts_total", "outcome"),
        }, "ops"),
        Panel("Errors", "By the error's code.", {"{{code}}": _rate("vigil_upstream_errors_total", "code")}, "ops"),
        Panel("Mended answers", "Answers in which something had to be replaced or left out.", {
            "{{flag}}": _rate("vigil_answers_mended_total", "flag"),
        }, "ops"),
        Panel("To the first output", "From the call.", _quantiles("vigil_ttft_seconds"), "s"),
        Panel("Length of attempts", "From the call to its end.", _quantiles("vigil_attempt_seconds"), "s"),
        Panel("Tokens", "Per second, as the provider counted them.", {
            "{{direction}}": _rate("vigil_tokens_total", "direction"),
        }),
        Panel("Cost", "US dollars an hour, by model.", {
            "{{model}}": f"3600 * {_rate('vigil_cost_usd_total', 'model')}",
        }, "currencyUSD"),
        Panel(
            "Access",
            "1 = may be called, 0 = may not.",
            {"{{provider_account}} {{model}}": "min by (provider_account, model) (vigil_access_ok)"},
        ),
        Panel("Last probe", "How long ago.", {
            "{{model}}": "time() - max by (model) (vigil_last_probe_timestamp_seconds)",
        }, "s"),
        Panel("Waiting for limits", "Jobs that wait for the provider's rate, or for one of the jobs at once to end.", {
            "{{waits_for}}": "max by (waits_for) (vigil_limit_waiting_jobs)",
        }),
        Panel("Circuits and resumes", "Circuits not closed; reconnections to running responses.", {
            "{{provider_account}} {{circuit}}": "max by (provider_account, circuit) (vigil_circuits)",
            "resumed": f"sum(rate(vigil_stream_resumes_total[{RATE}]))",
        }),
    ),
    "Webhooks": (
        Panel("Tries", "By result.", {"{{result}}": _rate("vigil_webhook_attempts_total", "result")}, "ops"),
        Panel("Length of tries", "How long receivers take.", _quantiles("vigil_webhook_seconds"), "s"),
        Panel("Lag", "From the event to its delivery.", _quantiles("vigil_webhook_lag_seconds"), "s"),
    ),
    "Processes": (
        Panel("Redis memory", "Used, to maxmemory.", {
            "used": "max(vigil_redis_used_memory_ratio)",
        }, "percentunit"),
        Panel("Redis", "1 = it answers; 1 = its last write to disk went well.", {
            "up": "max(vigil_redis_up)", "on disk": "min(vigil_redis_persistence_ok)",
        }),
        Panel("Redis bytes", "Memory that Redis uses.", {"used": "max(vigil_redis_used_memory_bytes)"}, "bytes"),
        Panel("API", "Answers a second, by class.", {
            "{{status_class}}": _rate("vigil_http_requests_total", "status_class"),
        }, "ops"),
        Panel("Loop lag", "How late a process comes to its own work.", {
            "{{instance}}": "max by (instance) (vigil_loop_lag_seconds)",
        }, "s"),
        Panel("Faults of ours", "Runs, sweeps and requests that broke; Redis found away; things no table lists; dead "
              "messages.", {
            "faults": f"sum(rate(vigil_run_faults_total[{RATE}]))",
            "store away": f"sum(rate(vigil_store_away_total[{RATE}]))",
            "dropped": f"sum(rate(vigil_telemetry_dropped_total[{RATE}]))",
            "webhooks given up": f"sum(rate(vigil_webhook_dead_total[{RATE}]))",
        }, "ops"),
        Panel("Unreadable values", "Stored values that could not be read, by kind of key; jobs that failed of it.", {
            "{{kind}}": _rate("vigil_records_unreadable_total", "kind"),
            "jobs set aside": f"sum(rate(vigil_jobs_set_aside_total[{RATE}]))",
        }, "ops"),
        Panel("Draining", "Workers that drain.", {
            "all": "max(vigil_workers_draining)", "{{instance}}": "max by (instance) (vigil_worker_draining)",
        }),
        Panel("Slots of each worker", "Jobs that may run in it.", {
            "{{instance}}": "max by (instance) (vigil_worker_slots)",
        }),
        Panel("Migrations", "Migrations of the store that are not done; older processes that they wait for.", {
            "left": "max(vigil_migrations_left)", "older processes": "max(vigil_older_processes)",
        }),
        Panel("Versions", "Of Vigil and of Python.", {
            "{{version}} on {{python}}": "count by (version, python) (vigil_build_info)",
        }),
    ),
}  # fmt: skip
"""Every panel, row by row."""


def dashboard() -> dict[str, Any]:
    """The whole, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        head = {"type": "row", "title": title, "collapsed": False, "panels": []}
        panels.append(_at(head, len(panels), 0, y, _WIDE, 1))
        y, x, height = y + 1, 0, 4 if row[0].kind == "stat" else 8
        for panel in row:
            if x + panel.width > _WIDE:
                x, y = 0, y + height
            panels.append(_at(_drawn(panel), len(panels), x, y, panel.width, height))
            x += panel.width
        y += height
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    return {
        "uid": "vigil",
        "title": "Vigil",
        "description": "Written by ops/grafana/generate.py; change it there.",
        "tags": ["vigil"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [{**source, "current": {}, "options": [], "includeAll": False, "multi": False}]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _at(panel: dict[str, Any], number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _drawn(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {"refId": chr(ord("A") + n), "datasource": source, "expr": expr, "legendFormat": legend or panel.title}
        for n, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": source,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **panel.more}, "overrides": []},
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if FILE.read_text(encoding="utf-8") == text() else "ops/grafana/vigil.json is not up to date")
    FILE.write_text(text(), encoding="utf-8")
