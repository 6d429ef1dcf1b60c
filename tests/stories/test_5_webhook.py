"""Story 5: the app is told. A signed message says that the job has ended, and is sent again until it is received."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from story import Story

sys.path.append(str(Path(__file__).resolve().parent.parent / "webhooks"))
from webhook_receivers import Receiver


async def test_a_webhook_tells_of_the_end_and_is_repeated_until_it_is_received(vigil: Story) -> None:
    async with Receiver() as receiver:
        receiver.says(503, 200)  # the first try fails
        webhook = {"url": receiver.url, "events": ["job.completed"]}
        job = await vigil.app.submit(model="gpt-5.6-sol", input="Why is the sky blue?", webhook=webhook)
        first, again = await receiver.gets(2)
    assert first.id == again.id  # the same message, so the app can tell
    assert first.body == again.body
    message = json.loads(again.body)
    assert message["type"] == "job.completed"
    assert message["data"]["id"] == job.id
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(again.headers)  # Standard Webhooks
