"""Certificates of an authority of the test's own, and a Valkey that speaks TLS only to who has one."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from worker.clock import Clock

SYSTEM_SERVER = next((path for name in ("valkey-server", "redis-server") if (path := shutil.which(name))), None)
"""A server of the system, which may have been built with TLS; the one that Vigil ships is not."""


@dataclass(frozen=True)
class Certificates:
    """Files in one folder: `ca.pem`, and for `server` and `client` each a certificate and its key."""

    folder: Path

    @property
    def query(self) -> str:
        """The options of an address for a client that has a certificate."""
        return f"ssl_ca_certs={self.folder}/ca.pem&ssl_certfile={self.folder}/client.pem&{self._key}"

    @property
    def _key(self) -> str:
        return f"ssl_keyfile={self.folder}/client.key&ssl_check_hostname=true"

    @property
    def server_options(self) -> list[str]:
        """The words for a server that asks each client for a certificate, other nodes and sentinels too."""
        pairs = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
        words = [word for name, file in pairs.items() for word in (f"--tls-{name}", str(self.folder / file))]
        return [*words, "--tls-auth-clients", "yes", "--tls-replication", "yes"]


def certificates(folder: Path) -> Certificates:
    """Make them in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the test's authority")])
    _write(folder / "ca.pem", _certificate(ca_name, ca_name, ca_key, ca_key, is_authority=True))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        _write(folder / f"{name}.pem", _certificate(subject, ca_name, key, ca_key, is_authority=False))
        private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return Certificates(folder)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = Clock().now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def speaks_tls(binary: str | None) -> bool:
    """Whether this server was built with TLS."""
    if binary is None:
        return False
    words = [binary, "--port", "0", "--tls-port", "1", "--save", ""]
    printed = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, cwd="/tmp").stdout
    return "Failed to configure TLS" in printed or "tls-cert-file" in printed


@contextmanager
def terminator(made: Certificates, port: int, server_port: int) -> Iterator[None]:
    """Take TLS connections on the port, only from who shows a certificate, and pass them on to the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.folder / "server.pem", made.folder / "server.key")
    context.load_verify_locations(made.folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    loop, up = asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        async with await asyncio.start_server(pass_on, "127.0.0.1", port, ssl=context):
            up.set()
            await asyncio.Event().wait()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", server_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, forth))
                both.create_task(_copy(back, writer))
        except* (OSError, ConnectionError):
            pass
        finally:
            for one in (forth, writer):
                one.close()

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(main)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()

    main = loop.create_task(serve())
    thread = threading.Thread(target=run, name="tls-terminator")
    thread.start()
    assert up.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join(30)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(65_536):
        target.write(piece)
        await target.drain()
    raise ConnectionError
