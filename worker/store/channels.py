"""The pub/sub channels: what is published to API and worker processes, and how its messages are read.

A message may be lost while a subscriber is disconnected. Nothing depends on one but speed: whoever waits for a message
also reads or polls what it would announce.
"""

from __future__ import annotations

from typing import Final, NamedTuple

WAKE: Final = "vigil:wake"
"""A job is ready to be claimed. The text of the message says nothing."""
OUTBOX_FILLED: Final = "vigil:told"
"""There is a webhook message to send. The text of the message says nothing."""
CHANGED: Final = "vigil:changed"
"""`<job id> <version> <status>` after every commit of a job."""
CONTROL: Final = "vigil:control"
"""`<job id>`: its holder should read the field `ctl`; `<job id> <message>`: for its holder, at once."""
OUTPUT_CHUNKS: Final = "vigil:pieces"
"""`<job id>:<attempt> <sealed chunk>`: text of all running answers, for the API of the release before."""


def output_chunks_of(job_id: str) -> str:
    """Return the channel with the text of one job, whose messages are those of OUTPUT_CHUNKS.

    Who watches one of thousands of answers receives that one alone, and its worker learns that it is watched.
    """
    return f"{OUTPUT_CHUNKS}:{job_id}"


def job_of(channel: str) -> str:
    """Return the job whose text is on this channel of `output_chunks_of`."""
    return channel.removeprefix(f"{OUTPUT_CHUNKS}:")


class ControlMessage(NamedTuple):
    """A message on CONTROL; `message` is "" when the holder should read the field `ctl`."""

    job_id: str
    message: str


def parse_control(raw: bytes) -> ControlMessage:
    """Parse a message on CONTROL."""
    job_id, _, message = raw.decode(errors="replace").partition(" ")
    return ControlMessage(job_id, message)
