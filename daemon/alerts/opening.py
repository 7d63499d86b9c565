"""From settings to a notifier: the channels for which a secret is there."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from config.settings import Notify
from core.errors import ConfigError
from daemon.alerts.channels import Channel, Telegram, Webhook
from daemon.alerts.notifier import Notifier
from daemon.control.credentials import Hide, read_secret
from daemon.observe.redaction import SECRETS

Read = Callable[[str, SecretStr | None, Path | None], str | None]

TOKEN = re.compile(r"\d+:[\w-]+", re.ASCII)


def open_notifier(
    settings: Notify, environ: Mapping[str, str], hide: Hide = SECRETS.add
) -> Notifier:
    """A notifier of every channel that is set up; of none, it takes notices and drops them.

    ``hide`` is told every secret that is read.
    """
    read = partial(_secret, environ=environ, hide=hide)
    found = [_webhook(settings, read), _telegram(settings, read)]
    channels = [channel for channel in found if channel is not None]
    return Notifier(channels, settings.topics, settings.messages_per_minute)


def _webhook(settings: Notify, read: Read) -> Channel | None:
    url = read("webhook", settings.webhook, settings.webhook_file)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise ConfigError("notify.webhook: must be an http or https address")
    return Webhook(url)


def _telegram(settings: Notify, read: Read) -> Channel | None:
    token = read("telegram_token", settings.telegram_token, settings.telegram_token_file)
    chat = str(settings.telegram_chat)
    if token is None and not chat:
        return None
    if token is None or not chat:
        raise ConfigError("notify: Telegram needs both telegram_chat and telegram_token")
    if not TOKEN.fullmatch(token):
        raise ConfigError("notify.telegram_token: is no bot token (123456:ABC...)")
    return Telegram(token, chat)


def _secret(
    name: str,
    given: SecretStr | None,
    file: Path | None,
    environ: Mapping[str, str],
    hide: Hide,
) -> str | None:
    return read_secret("notify", name, given=given, file=file, environ=environ, hide=hide)
