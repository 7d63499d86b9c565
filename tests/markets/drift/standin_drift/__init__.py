"""A stand-in for Solana and the Drift program, real on the wire, on a clock it owns.

In a test: ``async with Standin().open() as standin``, arrange with ``standin.desk``, point clients
at ``standin.url``, move time with ``standin.desk.tick()`` or ``clock``. As a process of its own:
``python -m standin_drift --port 0`` prints its addresses; ``RemoteDesk(url)`` is its desk.
"""

from standin_drift.desk import Desk, RemoteDesk
from standin_drift.faults import ALWAYS, Faults
from standin_drift.ledger import Chain
from standin_drift.process import Process, spawn
from standin_drift.server import Standin

__all__ = ["ALWAYS", "Chain", "Desk", "Faults", "Process", "RemoteDesk", "Standin", "spawn"]
