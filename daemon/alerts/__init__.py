"""Alerts: what an operator is told unasked, and the channels that carry it.

The loop only drops notices into a bounded queue. Whatever happens to a channel (slow, full,
refused, gone) is its own affair: it costs the loop nothing, and is counted.
"""

from daemon.alerts.notices import Notice, link, links_of, notices_of, started, stopped
from daemon.alerts.notifier import Notifier
from daemon.alerts.opening import open_notifier

__all__ = [
    "Notice",
    "Notifier",
    "link",
    "links_of",
    "notices_of",
    "open_notifier",
    "started",
    "stopped",
]
