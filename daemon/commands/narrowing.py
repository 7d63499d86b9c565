"""Narrowing a profile to the strategies and instruments that flags name.

What a person sets aside on purpose is not an unused key, so it leaves the profile before the check.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from config.layers import Layer

Tables = dict[str, Any]


def narrow(profile: Layer, strategies: Sequence[str], instruments: Sequence[str]) -> Layer:
    """The profile with only these strategies and instruments; an empty choice keeps all."""
    values = dict(profile.values)
    stanzas = _tables(values, "strategies")
    if strategies:
        stanzas = {name: stanza for name, stanza in stanzas.items() if name in strategies}
    if instruments:
        stanzas = {name: _keep(stanza, instruments) for name, stanza in stanzas.items()}
        stanzas = {name: stanza for name, stanza in stanzas.items() if stanza is not None}
    if "strategies" in values:
        values["strategies"] = stanzas
    added = any(name not in stanzas for name in strategies)
    used = _used(stanzas, instruments, added=added) if strategies or instruments else None
    for table in ("data", "instruments"):
        if used is not None and table in values:
            kept = {name: v for name, v in _tables(values, table).items() if name in used}
            values[table] = kept
    return replace(profile, values=values)


def _tables(values: Tables, name: str) -> Tables:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _keep(stanza: Any, instruments: Collection[str]) -> Any:
    """The stanza on these instruments only, None when it trades none of them."""
    listed = stanza.get("instruments") if isinstance(stanza, dict) else None
    if not isinstance(listed, list):
        return stanza
    kept = [name for name in listed if name in instruments]
    return {**stanza, "instruments": kept} if kept else None


def _used(stanzas: Tables, instruments: Sequence[str], *, added: bool) -> set[str] | None:
    """Instruments still traded, None for all there are; a strategy a flag added trades any."""
    listed = [s.get("instruments") if isinstance(s, dict) else None for s in stanzas.values()]
    if all(listed) and not added:
        return {name for names in listed for name in names or ()}
    return set(instruments) or None
