"""``python -m standin_drift``: serve until killed; the first line says where."""

import argparse
import asyncio
import json
import time

from standin_drift.accounts import USDC
from standin_drift.ledger import FINALIZED_AFTER, Chain
from standin_drift.server import Standin, described
from standin_drift.world import DRIFT


async def serve(options: argparse.Namespace) -> None:
    slot_ms = options.slot_ms or (
        round(1_000 / options.slots_per_s) if options.slots_per_s else 400
    )
    # the chain begins with as many slots as make its first one final
    start_s = round(time.time() - (FINALIZED_AFTER + 1) * slot_ms / 1_000)
    chain = Chain(program=options.program, mint=options.mint, start_s=start_s, slot_ms=slot_ms)
    standin = Standin(chain, nodes=options.nodes, seed=options.seed)
    standin.desk.slots_per_s = options.slots_per_s
    async with standin.open(options.port):
        print(json.dumps(described(standin)), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="standin_drift", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes free ports")
    parser.add_argument("--nodes", type=int, default=1, help="RPC nodes onto the one chain")
    parser.add_argument(
        "--slots-per-s", type=float, default=2.5, help="0: only /standin/tick moves"
    )
    parser.add_argument(
        "--slot-ms", type=int, default=0, help="0: chain time keeps up with real time"
    )
    parser.add_argument("--program", default=DRIFT)
    parser.add_argument("--mint", default=USDC, help="of the quote token")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
