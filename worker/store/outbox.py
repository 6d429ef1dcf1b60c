"""Webhook messages are born here, in the commit of the event they tell of, so none is lost between the two.

A message names its job, its event and where it stands; whom to tell and what to say is looked up when it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.events import Event
from worker.jobs.record import Job
from worker.store import keys
from worker.store.scripts import Command


def outbox_commands(job: Job, trail: Sequence[Event], clock: Clock) -> list[Command]:
    """A message for each event that the job's webhook wants to hear of."""
    commands: list[Command] = []
    for event in trail:
        if event.type not in job.webhook_events:
            continue
        due = to_ms(event.at)
        message_id = ids.new_id("msg", due, clock.dice(ids.DICE_BYTES))
        message = {
            "id": message_id,
            "job_id": job.id,
            "app": job.app,
            "type": event.type,
            "seq": event.seq,
            "state": "pending",
            "created_at": event.dump()["at"],
            "deliveries": [],
        }
        commands.append(("SET", keys.message(message_id), json.dumps(message)))
        commands.append(("RPUSH", keys.messages(job.id), message_id))
        commands.append(("ZADD", keys.OUTBOX, due, message_id))
    return commands
