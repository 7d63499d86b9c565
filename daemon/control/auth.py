"""Who may do what: the tokens, and where the daemon and its command line find them.

Only digests are kept, so no traceback or dump can hold a token, and every comparison takes the same
time whatever it is shown.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from config.settings import Settings
from core.errors import ConfigError
from daemon.control.credentials import Hide, read_secret, write_private
from daemon.observe.redaction import SECRETS

LENGTH_MIN = 16
FILE = "control.token"
SCHEME = b"bearer"


class Role(Enum):
    """What a caller may do."""

    STRANGER = "stranger"
    READER = "reader"
    OPERATOR = "operator"


class Tokens:
    """The token that may command, and perhaps another that may only look."""

    def __init__(self, control: str, read: str | None = None) -> None:
        for token in (control, read):
            if token is not None and len(token) < LENGTH_MIN:
                raise ConfigError(f"an API token has at least {LENGTH_MIN} characters")
        if control == read:
            raise ConfigError("the read token and the control token must differ")
        self._control = _digest(control.encode())
        # without a read token nobody can know what this digest is of
        self._read = _digest(read.encode() if read else secrets.token_bytes())

    def role(self, authorization: list[bytes]) -> Role:
        """The role that Authorization headers give; only one may be there."""
        scheme, _, token = (authorization[0] if authorization else b"").partition(b" ")
        digest = _digest(token)
        commands, reads = compare_digest(digest, self._control), compare_digest(digest, self._read)
        if len(authorization) != 1 or scheme.lower() != SCHEME:
            return Role.STRANGER
        return Role.OPERATOR if commands else Role.READER if reads else Role.STRANGER


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; any name but ``localhost`` may be another's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_file(settings: Settings) -> Path:
    """The file of the control token."""
    return (settings.api.token_file or settings.paths.runs / FILE).expanduser()


def find_token(
    settings: Settings, environ: Mapping[str, str], hide: Hide = SECRETS.add
) -> str | None:
    """The control token, None where nobody gave or made one."""
    path = token_file(settings)
    return read_secret(
        "api",
        "token",
        given=settings.api.token,
        file=path if path.exists() else None,
        environ=environ,
        hide=hide,
    )


def daemon_tokens(
    settings: Settings, environ: Mapping[str, str], hide: Hide = SECRETS.add
) -> Tokens:
    """The tokens the API asks for. On loopback a missing one is made; elsewhere it is refused."""
    api = settings.api
    read = read_secret(
        "api",
        "read_token",
        given=api.read_token,
        file=api.read_token_file,
        environ=environ,
        hide=hide,
    )
    control = find_token(settings, environ, hide) or _made(token_file(settings), api.host, hide)
    return Tokens(control, read)


def _made(path: Path, host: str, hide: Hide) -> str:
    if not is_loopback(host):
        raise ConfigError(
            f"api.host {host} is not loopback and there is no token: give one by the credential "
            f"api_token, LOCKSTEP__API__TOKEN, or {path} (chmod 600)"
        )
    token = secrets.token_urlsafe(32)
    hide(token)
    write_private(path, token)
    return token
