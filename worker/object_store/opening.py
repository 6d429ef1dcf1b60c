"""Opens the object store of an address with the keys of the settings.

What isn't set is found as the vendors' own tools find it: variables of the environment, the role of the machine or of
the service account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from worker.object_store.address import StoreAddress
from worker.object_store.errors import RAISED, ObjectStoreError, translated
from worker.object_store.object_store import ObjectStore
from worker.object_store.store_keys import StoreKeys

_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the store may take, in seconds: to connect, to answer one request, and in all with what is retried."""

    connect: float = 5.0
    request: float = 30.0
    total: float = 90.0


def open_object_store(address: StoreAddress, keys: StoreKeys, patience: Patience | None = None) -> ObjectStore:
    """Return the store; nothing is asked of it yet, only the folder of a `file://` is made.

    Raises ObjectStoreError when the keys can't be those of such a store, or the folder can't be made.
    """
    patience = patience or Patience()
    failed: ObjectStoreError
    try:
        client = _client(address, keys, patience)
    except RAISED as error:
        failed = translated(f"open {address}", error)
    else:
        return ObjectStore(client, address, seconds=patience.total, tries=2)
    raise failed


def _client(address: StoreAddress, keys: StoreKeys, patience: Patience) -> S3Store | GCSStore | AzureStore | LocalStore:
    if address.scheme == "file":
        return LocalStore(address.folder, mkdir=True)
    config: dict[str, Any] = {name: value for name, value in getattr(keys, address.scheme).items() if value}
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=patience.connect),
        "timeout": timedelta(seconds=patience.request),
        "allow_http": str(config.get("endpoint", "")).startswith("http://"),
    }
    retries: dict[str, Any] = {
        "max_retries": _RETRIES,
        "retry_timeout": timedelta(seconds=patience.total),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    named: dict[str, Any] = {
        "prefix": address.prefix or None,
        "config": config,
        "client_options": options,
        "retry_config": retries,
    }
    match address.scheme:
        case "s3":
            # write-once buckets take no object without a checksum
            named["config"] = {"checksum_algorithm": "SHA256", **config}
            return S3Store(address.bucket, **named)
        case "gs":
            return GCSStore(address.bucket, **named)
        case "az":
            return AzureStore(address.bucket, **named)
