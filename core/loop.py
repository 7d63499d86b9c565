"""The one loop. Live, on paper and in replay only its feed, journal, venue and advisor differ."""

from core.engine import Engine
from core.ports import Advisor, Feed, Journal, Venue


async def run(engine: Engine, feed: Feed, journal: Journal, venue: Venue, advisor: Advisor) -> None:
    """Fold every block of the feed; record what follows before any of it can have an effect."""
    async for block in feed:
        at = 0
        while at < len(block):
            start = at
            at, outcomes, track, questions = engine.advance(block, at)
            await journal.append(block[start:at], outcomes, track)
            if engine.halts(outcomes):
                await venue.halt()
            for approved in engine.outside(outcomes):
                await venue.submit(approved)
            if questions:
                await advisor.ask(questions)
                feed.rewind(len(block) - at)  # the answers may come before the rest
                break
