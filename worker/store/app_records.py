"""Encode and decode an app's record: its limits, and the sealed secret of its webhooks."""

from __future__ import annotations

import json
from typing import Any

from worker.jobs.stored_fields import require_known_schema
from worker.store import keys
from worker.store.envelope import MasterKeyring
from worker.store.record_mac import RecordMacs
from worker.store.values import read


def secret_name(app: str) -> str:
    """Return the name under which an app's webhook secret is sealed."""
    return f"app:{app}"


def app_content(keyring: MasterKeyring, record: dict[str, Any]) -> dict[str, Any]:
    """Return an app's record with its webhook secret as it is, which the rotation of master keys does not change."""
    secret = keyring.unseal_text(secret_name(record["name"]), record["webhook_secret"])
    return {**record, "webhook_secret": secret}


def dump_app(macs: RecordMacs, record: dict[str, Any]) -> bytes:
    """Encode an app's record."""
    return macs.attach(keys.app(record["name"]), json.dumps(record, separators=(",", ":")))


def load_app(macs: RecordMacs, name: str, raw: bytes) -> dict[str, Any]:
    """Decode an app's record. Raises RecordUnreadable, also if Vigil did not write it."""
    key = keys.app(name)

    def load(raw: bytes) -> dict[str, Any]:
        body = json.loads(macs.detach(key, key, raw))
        if not isinstance(body, dict) or not isinstance(body["webhook_secret"], str) or body["name"] != name:
            raise TypeError("not an app's record")
        return require_known_schema(body)

    return read(key, raw, load)
