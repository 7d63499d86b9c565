"""An outage of the database passes: what may be asked again is asked again, for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from core.errors import JournalUnreachable

Done = TypeVar("Done")

PATIENCE_S, PAUSE_FIRST_S, PAUSE_MAX_S = 120.0, 0.1, 2.0


def patiently(call: Callable[[], Done], *, patience_s: float = PATIENCE_S) -> Done:
    """What ``call`` answers, tried again while the database is away; it must bear to be repeated,
    for nobody knows whether a commit whose answer was lost went through.

    JournalUnreachable when the outage lasts longer than ``patience_s``.
    """
    over, pause = time.monotonic() + patience_s, PAUSE_FIRST_S
    while True:
        try:
            return call()
        except JournalUnreachable:
            if time.monotonic() > over:
                raise
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_MAX_S)
