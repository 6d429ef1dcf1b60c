"""The table of metrics: names as Prometheus wants them, few values per label, no content."""

from __future__ import annotations

import re

import pytest

from worker.telemetry import metrics_subscriber
from worker.telemetry.metrics import LABELS, METRICS, REGISTRY, MetricsRegistry


@pytest.mark.parametrize("name", METRICS)
def test_a_name_says_its_unit_and_a_counter_that_it_only_rises(name: str) -> None:
    row = METRICS[name]
    assert re.fullmatch(r"vigil_[a-z][a-z_]*[a-z]", name)
    assert (row.kind == "counter") == name.endswith("_total")
    assert row.kind != "histogram" or (name.endswith("_seconds") and list(row.buckets) == sorted(set(row.buckets)))
    assert row.help.endswith(".")
    assert set(row.labels) <= LABELS.keys()
    assert not {"job_id", "app", "end_user", "request_id"} & set(row.labels)


def test_a_value_that_no_table_lists_counts_as_other() -> None:
    book = MetricsRegistry()
    book.set_models(["gpt-5.6-sol"], {"gpt-5.6": "gpt-5.6-sol"})
    for model in ("gpt-5.6-sol", "gpt-5.6", "sk-secret", "x" * 1000):
        book.count(
            "vigil_blocks_total",
            category="cyber",
            code="cyber_policy" if model != "gpt-5.6" else "a prompt",
            model=model,
        )
    text = book.text().decode()
    assert 'vigil_blocks_total{category="cyber",code="cyber_policy",model="gpt-5.6-sol"} 1.0' in text
    assert 'vigil_blocks_total{category="cyber",code="other",model="gpt-5.6-sol"} 1.0' in text
    assert 'vigil_blocks_total{category="cyber",code="cyber_policy",model="other"} 2.0' in text
    assert "secret" not in text
    assert "prompt" not in text


def test_what_is_true_of_the_whole_is_told_beside_what_is_true_of_the_process() -> None:
    book = MetricsRegistry()
    book.observe("vigil_job_wait_seconds", 3)
    text = book.text([("vigil_queue_depth", {"state": "queued"}, 7), ("vigil_redis_up", {}, 1)]).decode()
    assert 'vigil_queue_depth{state="queued"} 7.0' in text
    assert "vigil_redis_up 1.0" in text
    assert 'vigil_job_wait_seconds_bucket{le="5.0"} 1.0' in text
    assert "_created" not in text


def test_a_mended_answer_is_counted_by_what_was_mended() -> None:
    line = 'vigil_answers_mended_total{flag="not_a_number"}'
    metrics_subscriber.observe("answer.mended", {"what": "not_a_number", "model": "m"})
    first = REGISTRY.text().decode()
    metrics_subscriber.observe("answer.mended", {"what": "not_a_number", "model": "m"})
    counts = [float(re.search(re.escape(line) + r" ([0-9.]+)", text)[1]) for text in (first, REGISTRY.text().decode())]  # type: ignore[index]
    assert counts[1] == counts[0] + 1


def test_a_metric_or_a_label_that_is_not_listed_is_a_fault_of_ours() -> None:
    book = MetricsRegistry()
    with pytest.raises(KeyError):
        book.count("vigil_made_up_total")
    with pytest.raises(KeyError):
        book.count("vigil_blocks_total", category="cyber", code="cyber_policy")
