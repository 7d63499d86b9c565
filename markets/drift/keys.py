"""The key that signs: held in one place, shown in none."""

import json
from typing import Any

from core.errors import ConfigError

_SECRET_BYTES = 64


class Key:
    """A key pair. Its text, its representation and its errors never hold the secret.

    ``secret``: 64 bytes as a JSON array or in base58, the two forms wallets export. ConfigError
    when it is neither, or its halves do not belong together.
    """

    __slots__ = ("__pair", "address")

    def __init__(self, secret: str) -> None:
        from solders.keypair import Keypair

        try:
            pair = Keypair.from_bytes(_secret_bytes(secret))
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(
                "the signing key is neither a JSON array of 64 bytes nor 64 bytes in base58"
            ) from None
        self.__pair = pair
        self.address = str(pair.pubkey())

    def __repr__(self) -> str:
        return f"Key({self.address})"

    def __getstate__(self) -> Any:
        raise TypeError("a signing key is not copied")

    def sign(self, message: Any) -> Any:
        """The message as a signed transaction."""
        from solders.transaction import VersionedTransaction

        return VersionedTransaction(message, [self.__pair])


def _secret_bytes(secret: str) -> bytes:
    from base58 import b58decode

    raw = bytes(json.loads(secret)) if secret.startswith("[") else b58decode(secret)
    if len(raw) != _SECRET_BYTES:
        raise ValueError("not 64 bytes")
    return raw
