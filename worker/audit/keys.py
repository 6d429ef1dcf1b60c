"""Signs and verifies checkpoints: Ed25519, keys named by the first 16 hex digits of the public key's SHA-256. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from worker.audit.keytext import id_of


class Signer:
    """Signs with one private key, which is never shown."""

    __slots__ = ("_key", "key_id", "public")

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.key_id = id_of(self.public)

    def sign(self, body: bytes) -> str:
        """Return the signature of these bytes in base64."""
        return base64.b64encode(self._key.sign(body)).decode()


class TrustedKeys:
    """The public keys that a verifier trusts."""

    def __init__(self, public: Iterable[bytes]) -> None:
        self._keys = {id_of(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in public}

    def __len__(self) -> int:
        return len(self._keys)

    def verify(self, key_id: str, signature: str, body: bytes) -> Literal["good", "bad", "unknown"]:
        """Return whether this key signed these bytes; "unknown" if the key is not a trusted one."""
        key = self._keys.get(key_id)
        if key is None:
            return "unknown"
        try:
            key.verify(base64.b64decode(signature, validate=True), body)
        except (InvalidSignature, binascii.Error, ValueError):
            return "bad"
        return "good"
