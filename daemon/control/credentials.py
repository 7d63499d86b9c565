"""Where secrets may come from: a systemd credential, the environment, or a file of its owner alone.

A secret never stands in a profile or a flag, for those are printed, journaled and shared. No error
here repeats what it read, and what was read is one line of visible characters, fit for a header.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import SecretStr

from config.layers import ENVIRONMENT
from core.errors import ConfigError
from daemon.observe.redaction import SECRETS

CREDENTIALS = "CREDENTIALS_DIRECTORY"
BYTES_MAX = 4_096
NOT_OURS = 0o077

Hide = Callable[[str], None]


def read_secret(
    section: str,
    name: str,
    *,
    given: SecretStr | None,
    file: Path | None,
    environ: Mapping[str, str],
    hide: Hide = SECRETS.add,
) -> str | None:
    """The secret of a setting, None where nobody gave one. ``given`` is the setting as it was read.

    The first of: the credential ``section_name``, the setting's own variable, the file. ``hide`` is
    told it, so that it can be taken out of every line of the log and of every error.
    """
    secret = _read(section, name, given=given, file=file, environ=environ)
    if secret is not None:
        hide(secret)
    return secret


def _read(
    section: str,
    name: str,
    *,
    given: SecretStr | None,
    file: Path | None,
    environ: Mapping[str, str],
) -> str | None:
    variable = f"{ENVIRONMENT}{section}__{name}".upper()
    told = next((text for key, text in environ.items() if key.upper() == variable), None)
    if given is not None and told is None:
        raise ConfigError(
            f"{section}.{name}: a secret must not stand in a profile or a flag: use a systemd "
            f"credential, {variable}, or {section}.{name}_file"
        )
    credential = _credential(f"{section}_{name}", environ)
    if credential is not None:
        return credential
    if told is not None:
        return checked(told, variable)
    return None if file is None else read_private(file.expanduser())


def _credential(name: str, environ: Mapping[str, str]) -> str | None:
    """What systemd laid down for us; it has seen to who may read it."""
    folder = environ.get(CREDENTIALS)
    path = Path(folder) / name if folder else None
    if path is None or not path.exists():
        return None
    return checked(_text(path.read_bytes(), str(path)), f"credential {name}")


def read_private(path: Path) -> str:
    """A secret from a regular file that its owner, who is us or root, alone may read."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{path}: the secret cannot be read: {error.strerror}") from error
    with os.fdopen(opened, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(f"{path}: a secret must stand in a regular file")
        if about.st_mode & NOT_OURS:
            raise ConfigError(f"{path}: others may read this secret: chmod 600 {path}")
        if about.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{path}: this secret belongs to another user")
        return checked(_text(file.read(BYTES_MAX + 1), str(path)), str(path))


def write_private(path: Path, secret: str) -> None:
    """A new file that its owner alone may read; it must not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")


def _text(raw: bytes, place: str) -> str:
    if len(raw) > BYTES_MAX:
        raise ConfigError(f"{place}: a secret has at most {BYTES_MAX:,} bytes")
    return raw.decode("ascii", errors="replace")


def checked(text: str, place: str) -> str:
    """The secret without the white space around it; ConfigError when it is none."""
    secret = text.strip()
    if not secret:
        raise ConfigError(f"{place}: the secret is empty")
    if not all("!" <= letter <= "~" for letter in secret):
        raise ConfigError(f"{place}: a secret is one line of visible ASCII characters")
    return secret
