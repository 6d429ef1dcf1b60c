"""A real S3 server on a port of its own (moto's, which keeps the objects in its memory), and what a test does to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.error import URLError

from waiting import LIMIT

from worker.object_store.address import StoreAddress
from worker.object_store.object_store import ObjectStore
from worker.object_store.opening import Patience, open_object_store
from worker.object_store.store_keys import StoreKeys

PATIENT = Patience(connect=LIMIT, request=LIMIT, total=3 * LIMIT)
HASTY = Patience(connect=0.5, request=0.5, total=1.5)


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and its process."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a process of Vigil reaches it."""
        keys = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "made-up-secret"}
        return {**keys, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.url}

    def make_bucket(self, name: str, *, write_once: bool = False, undeletable: bool = False) -> None:
        """Make a bucket; `write_once`: with object lock, so that it keeps each version; `undeletable`: its
        policy lets nobody delete.
        """
        locked = {"x-amz-bucket-object-lock-enabled": "true"} if write_once else {}
        self._put(name, b"", locked)
        if undeletable:
            rule = {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:DeleteObject",
                "Resource": f"arn:aws:s3:::{name}/*",
            }
            policy = {"Version": "2012-10-17", "Statement": [rule]}
            self._put(f"{name}?policy", json.dumps(policy).encode(), {})

    def open(self, bucket: str, prefix: str = "", patience: Patience = PATIENT) -> ObjectStore:
        """A store in this bucket."""
        keys = {"access_key_id": "AKIATEST", "secret_access_key": "made-up-secret", "region": "us-east-1"}
        return open_object_store(
            StoreAddress("s3", bucket, prefix), StoreKeys(s3={**keys, "endpoint": self.url}), patience
        )

    @contextmanager
    def silent(self) -> Iterator[None]:
        """An outage: it takes connections and answers nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def checks_keys(self) -> Iterator[None]:
        """It checks who calls, and knows nobody."""
        self._post("moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._post("moto-api/reset-auth", b"1e9")

    def _post(self, path: str, body: bytes) -> None:
        self._send("POST", path, body, {})

    def _put(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._send("PUT", path, body, headers)

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}/{path}", data=body, method=method, headers={"Content-Type": "text/plain", **headers}
        )
        with urllib.request.urlopen(request, timeout=LIMIT):  # noqa: S310
            pass


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server that has answered once."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            _await_answer(port, process)
            yield S3Server(port, process)
        finally:
            process.kill()


def _await_answer(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 6 * LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=LIMIT):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    msg = "the S3 server did not start"
    raise AssertionError(msg)
