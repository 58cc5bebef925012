"""Ed25519 key pairs (RFC 8032): made, kept in a file of their own, used.

A town's private key lives in one file beside the database and never in it, so that a stolen backup cannot speak for the town
(design §4, Joining). libsodium, through PyNaCl, verifies nearly twice as fast as OpenSSL (`limits.md` A4).

Every signature is made over a context word and the message (`b"event1" ‖ hash`), so that what was signed for one purpose can
never be shown for another.
"""

import base64
import binascii
import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

PUBLIC_LENGTH = 32


class DamagedKey(ValueError):  # noqa: N818  # named for its reason
    """A key file does not hold a key any more; the message names it."""


def key_id_of(public: bytes) -> str:
    """A public key's short name: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True)
class KeyPair:
    """A key pair that can sign. `public` is 32 bytes."""

    seed: bytes
    public: bytes
    key_id: str

    @classmethod
    def of(cls, seed: bytes) -> "KeyPair":
        public = bytes(SigningKey(seed).verify_key)
        return cls(seed, public, key_id_of(public))

    def sign(self, context: bytes, message: bytes) -> bytes:
        """64 bytes over context ‖ message."""
        return _signer(self.seed).sign(context + message).signature

    def __repr__(self) -> str:
        return f"KeyPair({self.key_id})"  # a seed must not reach a log


@lru_cache(maxsize=8)
def _signer(seed: bytes) -> SigningKey:
    return SigningKey(seed)


@lru_cache(maxsize=1024)
def _verifier(public: bytes) -> VerifyKey:
    return VerifyKey(public)


def verified(public: bytes, signature: bytes, context: bytes, message: bytes) -> bool:
    """Whether `signature` was made over context ‖ message by the holder of this key."""
    try:
        _verifier(public).verify(context + message, signature)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def to_text(raw: bytes) -> str:
    """Base64, as keys, salts and signatures travel in JSON."""
    return base64.b64encode(raw).decode()


def from_text(text: object, length: int) -> bytes:
    """Bytes from base64. Raises `ValueError` unless they are exactly `length` long."""
    if not isinstance(text, str) or len(text) > 2 * length + 4:
        msg = "no base64"
        raise ValueError(msg)
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        msg = "no base64"
        raise ValueError(msg) from error
    if len(raw) != length:
        msg = f"not {length} bytes"
        raise ValueError(msg)
    return raw


def keep_key(path: Path, seed: bytes) -> KeyPair:
    """Write a new key file, readable by its owner only, safely on disk before this returns. An existing key is never replaced.

    Two processes may do this at once, at a first start: the first one's key is the key, and both return it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable by its owner only
    with os.fdopen(handle, "w") as file:
        file.write(to_text(seed) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        first = load_key(path)
        if first is not None:
            return first
    finally:
        Path(fresh).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return KeyPair.of(seed)


def load_key(path: Path) -> KeyPair | None:
    """The key pair kept at this path, or None if there is none yet. Raises `DamagedKey`."""
    try:
        return KeyPair.of(from_text(path.read_text().strip(), 32))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedKey(f"{path} holds no key, or no longer; put back the copy you kept of it") from error
