"""Requests to whoever runs a job: each is one commit that the holder of the lease sees at its next renewal."""

import pytest
from builders import CANCELLED, STARTED, began, new_job

from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.jobs.states import Status
from worker.store.jobs.control_requests import JobControl

OFFER = ev.OfferMade(model="gpt-5.6-luna")


async def claimed(jobs, *drafts):
    """(the id of a claimed job after these events, what its holder has for the renewal)."""
    job_id = (await jobs.submit(new_job()))[0].job.id
    _, (held,) = await jobs.claim("w1", 1, 60)
    await jobs.change(job_id, lambda _: drafts)
    return job_id, [(job_id, held.token)]


async def test_a_waiting_job_is_cancelled_at_once(jobs):
    job_id = (await jobs.submit(new_job()))[0].job.id
    job, under_way = await JobControl(jobs).request_cancel(job_id, by="key_1")
    assert (job.status, under_way) == (Status.CANCELLED, False)


async def test_the_holder_of_a_running_job_sees_the_request_at_its_renewal(jobs):
    job_id, lease = await claimed(jobs, (STARTED, None), (began(), 1))
    control = JobControl(jobs)
    job, under_way = await control.request_cancel(job_id, by="key_1")
    assert (job.settled, under_way) == (False, True)
    assert await jobs.renew(60, lease) == ["cancel"]
    again, _ = await control.request_cancel(job_id, by="key_2")
    assert again.version == job.version


async def test_a_job_that_was_handed_over_is_cancelled_by_its_next_holder(jobs):
    job_id, _ = await claimed(jobs, (STARTED, None), (began(), 1), (ev.Interrupted(worker="w1"), None))
    job, under_way = await JobControl(jobs).request_cancel(job_id, by="key_1")
    assert (job.status, under_way) == (Status.QUEUED, True), "its response runs on, and only a holder can stop it"
    _, (held,) = await jobs.claim("w2", 1, 60)
    assert held.job.cancel_requested_at is not None


async def test_a_settled_job_is_left_as_it_is(jobs):
    job_id, _ = await claimed(jobs, (CANCELLED, None))
    before = await jobs.current(job_id)
    job, _ = await JobControl(jobs).request_cancel(job_id, by="key_1")
    assert job == before


async def test_an_offer_is_accepted_by_its_model_or_without_one(jobs):
    for model in ("gpt-5.6-luna", None):
        job_id, lease = await claimed(jobs, (STARTED, None), (began(), 1), (OFFER, None))
        with pytest.raises(Refused, match="no open offer"):
            await JobControl(jobs).accept_offer(job_id, "gpt-5.6-nova", by="key_1")
        job = await JobControl(jobs).accept_offer(job_id, model, by="key_1")
        assert job.offer is None
        assert await jobs.renew(60, lease) == ["offer"]
