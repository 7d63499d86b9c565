"""The halt latch: what the account's own losses do to the mode. It only ever tightens.

A daily loss leaves REDUCING, which ends with its UTC day. A drawdown from the peak leaves HALTED,
which only an operator's RESUME ends. Both are part of the state, so they survive a restart.
"""

from typing import Any

from core.compiled import compiled
from core.ledger import equity_micros
from core.model import Mode
from risk.gate import Rule


@compiled
def watch(account: Any, limits: Any) -> int:
    """Tighten ``account.mode`` where a limit is hit; ease a daily one on a new day."""
    equity = equity_micros(account)
    daily = account.day_start_micros - equity
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
