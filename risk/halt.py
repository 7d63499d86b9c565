"""The halt latch: what the account's own losses do to the mode. It only ever tightens.

A daily loss leaves REDUCING, which ends with its UTC day. A drawdown from the peak leaves HALTED,
which only an operator's RESUME ends. Both are part of the state, so they survive a restart.
"""

import math
from typing import Any

from core.compiled import compiled
from core.ledger import equity_micros
from core.model import Mode
from risk.gate import Rule


@compiled
def _alarm(account: Any, limits: Any) -> int:
    """The higher of the two equities at which a limit is hit, 0 when none is on."""
    alarm = 0.0
    if limits.drawdown > 0.0:
        alarm = account.peak_micros * (1.0 - limits.drawdown)
    if limits.daily_loss > 0.0:
        alarm = max(alarm, account.day_start_micros * (1.0 - limits.daily_loss))
    # a micro of slack: the limits themselves are compared below, not here
    return math.ceil(alarm) + 1 if alarm > 0.0 else 0


@compiled
def watch(account: Any, limits: Any) -> int:
    """Tighten ``account.mode`` where a limit is hit; ease a daily one on a new day.

    Answers 1 when the mode moved. It also sets ``alarm_micros``, the equity above which, until
    a new peak or day, there is nothing to see.
    """
    equity = equity_micros(account)
    daily = account.day_start_micros - equity
    account.alarm_micros = _alarm(account, limits)
    if limits.drawdown > 0.0 and account.mode != Mode.HALTED:
        fallen = account.peak_micros - equity
        if fallen >= limits.drawdown * account.peak_micros:
            account.mode = Mode.HALTED
            account.mode_rule = Rule.DRAWDOWN.value
            return 1
    over = limits.daily_loss > 0.0 and daily >= limits.daily_loss * account.day_start_micros
    if over and account.mode == Mode.ACTIVE:
        account.mode = Mode.REDUCING
        account.mode_rule = Rule.DAILY_LOSS.value
        account.mode_end_ts = account.day_end_ts
        return 1
    ours = account.mode == Mode.REDUCING and account.mode_rule == Rule.DAILY_LOSS
    if ours and account.day_end_ts != account.mode_end_ts:
        account.mode = Mode.ACTIVE
        account.mode_rule = 0
        return 1
    return 0
