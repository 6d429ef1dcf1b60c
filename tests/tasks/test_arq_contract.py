"""What Vigil relies on inside arq 0.28: if an upgrade changes it, this fails before a worker does."""

import inspect

import arq
import arq.worker
from arq.constants import in_progress_key_prefix, job_key_prefix, retry_key_prefix


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_methods_that_are_overridden_still_have_their_signatures() -> None:
    assert parameters(arq.worker.Worker.main) == ["self"]
    assert parameters(arq.worker.Worker._poll_iteration) == ["self"]
    assert parameters(arq.worker.Worker.run_job) == ["self", "job_id", "score"]


def test_the_parts_of_the_worker_that_are_used_still_exist() -> None:
    source = inspect.getsource(arq.worker.Worker)
    for used in ("self.tasks", "self.max_jobs", "self.allow_pick_jobs", "self.ctx", "def pool"):
        assert used in source


def test_the_payload_that_the_claim_script_writes_is_what_arq_reads() -> None:
    assert (job_key_prefix, retry_key_prefix, in_progress_key_prefix) == ("arq:job:", "arq:retry:", "arq:in-progress:")
    from arq.jobs import deserialize_job_raw

    raw = b'{"t":null,"f":"run_job","a":["job_x"],"k":{},"et":0}'
    import json

    assert deserialize_job_raw(raw, deserializer=json.loads) == ("run_job", ["job_x"], {}, None, 0)


def test_arq_is_the_version_that_was_read() -> None:
    assert arq.VERSION.startswith("v0.28") or arq.VERSION.startswith("0.28")


def test_cron_finds_what_stock_arq_gives() -> None:
    assert {"run_at_startup", "unique", "name", "minute", "second"} <= set(parameters(arq.cron))
    assert parameters(arq.worker.Worker.run_cron) == ["self", "n", "delay", "num_windows"]
    beat = inspect.getsource(arq.worker.Worker.heart_beat)
    assert "self.run_cron(" in beat, "cron is part of the stock poll"
    unique = inspect.getsource(arq.worker.Worker.run_cron)
    assert "{cron_job.name}:{to_unix_ms(cron_job.next_run)}" in unique, "one id for all workers"


def test_the_claimer_leaves_arqs_own_queue_to_the_cron_worker() -> None:
    from worker.tasks.execution import claimer
    from worker.tasks.maintenance import cron

    assert "super()" not in inspect.getsource(claimer.Claimer._poll_iteration)
    assert not issubclass(cron.CronWorker, arq.worker.Worker)
