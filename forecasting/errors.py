"""What stops a question before or after a model is reached, and is not the model's failure."""

from pathlib import Path

from core.errors import ConfigError, DataError


class PromptError(ConfigError):
    """A prompt file, or the values to fill it with, are not what the prompt declares."""


class CassetteMiss(DataError):
    """A replay asks what was never recorded; the message names the call."""


class CassetteDamaged(DataError):
    """An entry of a cassette is not what was written, or does not stand under its own key."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}: restore it, or 'lockstep cassette prune --damaged'")
        self.path = path
