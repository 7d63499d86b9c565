"""Whether Drift could be traded right now: what ``lockstep doctor --venue drift`` looks at.

Nothing is signed or sent. Each look stands for itself, so that one silent node hides nothing else.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from config.settings import Drift, Live
from core.errors import LockstepError
from daemon.live.service import Clock
from daemon.venues.drift import Switches, open_reader, read_key
from markets.drift.account import (
    MAINNET_GENESIS,
    check_access,
    find_markets,
    market_closed,
    paused,
    read_holdings,
)
from markets.drift.keys import Key
from markets.drift.program import DRIFT
from markets.drift.rpc import Node
from markets.drift.units import quote_from_chain
from markets.drift.views import LAG_SLOTS_MAX, Reader

CLOCK_APART_MS_MAX = 5_000
LAMPORTS_PER_SOL = 10**9
LAMPORTS_MIN, LAMPORTS_WARN = 1_000_000, 50_000_000
"""A thousandth of a SOL is some hundred orders' fees; a twentieth lasts for thousands."""

Said = tuple[str, str]
"""``ok``, ``warn`` or ``fail``, and what was found."""


@dataclass(frozen=True, slots=True)
class Look:
    """One thing looked at."""

    check: str
    state: str
    detail: str


async def drift_looks(
    settings: Drift, live: Live, lots: Mapping[str, float], environ: Mapping[str, str], clock: Clock
) -> AsyncIterator[Look]:
    """All looks in their order; ``lots`` is of the instruments to be traded."""
    try:
        key = read_key(settings, environ)
    except LockstepError as error:
        yield Look("key", "fail", str(error))
        return
    authority = settings.authority or key.address
    yield Look("key", "ok", f"it signs as {key.address}, for {authority}")
    switches = Switches(profile=live.real_money, flag=True)
    try:
        async with open_reader(settings, authority, clock, switches) as reader:
            slots: dict[str, int] = {}
            for node in reader.nodes:
                yield await _look(f"node {node.host}", partial(_node, node, slots))
            yield await _look("venue", partial(venue_look, reader, switches))
            yield await _look("clock", partial(_clock, reader, clock))
            number = settings.sub_account
            yield await _look("account", partial(_account, reader, key, authority, number))
            address = reader.program.user(authority, number)
            yield await _look("collateral", partial(_collateral, reader, address, clock))
            yield await _look("markets", partial(_markets, reader, lots))
            yield await _look("fees", partial(_fees, reader, key))
    except LockstepError as error:
        yield Look("nodes", "fail", str(error))


async def _look(check: str, ask: Callable[[], Awaitable[Said]]) -> Look:
    try:
        return Look(check, *await ask())
    except LockstepError as error:
        return Look(check, "fail", str(error))


async def _node(node: Node, slots: dict[str, int]) -> Said:
    slot, tip = await node.slot(), await node.finalized()
    slots[node.host] = slot
    behind = max(slots.values()) - slot
    told = f"slot {slot}, finalized {tip.slot}, {behind} behind the others"
    return ("fail" if behind > LAG_SLOTS_MAX else "ok"), told


async def venue_look(reader: Reader, switches: Switches) -> Said:
    """Whether the venue as a whole can be traded, and what of it is closed."""
    program, closed = reader.program.id, await paused(reader)
    if program == DRIFT and switches.genesis == MAINNET_GENESIS:
        return "fail", "Drift v2 is closed: its program was emptied on 2026-04-01"
    if closed:
        return "fail", f"the exchange has closed: {', '.join(closed)}"
    return "ok", f"program {program}, nothing closed"


async def _clock(reader: Reader, clock: Clock) -> Said:
    node = reader.nodes[0]
    apart_ms = clock() - await node.time_ms(await node.slot())
    told = f"ours is {apart_ms / 1000:+.1f} s from the chain's"
    return ("fail" if abs(apart_ms) > CLOCK_APART_MS_MAX else "ok"), told


async def _account(reader: Reader, key: Key, authority: str, sub_account: int) -> Said:
    user = await check_access(reader, key.address, authority, sub_account)
    role = "its authority" if key.address == user.authority else "its delegate"
    address = reader.program.user(authority, sub_account)
    return "ok", f"{address}, sub-account {sub_account}; the key is {role}"


async def _collateral(reader: Reader, address: str, clock: Clock) -> Said:
    held = await read_holdings(reader, address, clock)
    free = quote_from_chain(held.margin.free)
    told = f"{quote_from_chain(held.margin.collateral):,.2f} in quote, {free:,.2f} of it free"
    positions = ", ".join(f"{size:+f} {name}" for name, size in held.positions.items())
    return ("ok" if free > 0 else "fail"), f"{told}; {positions or 'no position'}"


async def _markets(reader: Reader, lots: Mapping[str, float]) -> Said:
    if not lots:
        return "warn", "no [instruments.NAME] to trade"
    found = await find_markets(reader, lots)
    closed = [why for index in found.values() if (why := await market_closed(reader, index))]
    return ("fail", "; ".join(closed)) if closed else ("ok", f"{', '.join(found)}: open")


async def _fees(reader: Reader, key: Key) -> Said:
    lamports = await reader.balance(key.address)
    told = f"{lamports / LAMPORTS_PER_SOL:.6f} SOL for fees in {key.address}"
    if lamports < LAMPORTS_MIN:
        return "fail", f"{told}: send it some"
    return ("warn" if lamports < LAMPORTS_WARN else "ok"), told
