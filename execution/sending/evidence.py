"""What answers of nodes prove. Nodes lag, forget and disagree, so most answers prove nothing."""

from collections.abc import Sequence
from typing import NamedTuple

from core.sending import Level, Look, Seen, Tip


class Sight(NamedTuple):
    """One endpoint's finalized tip, and then, asked after it, its look for a signature."""

    tip: Tip
    look: Look


def finalized(sights: Sequence[Sight]) -> Seen | None:
    """The transaction where no fork can undo it any more.

    A confirmed one is not believed, though it would be known some twelve seconds sooner: a fill
    told to the loop is journaled and acted on, and could not be taken back.
    """
    seen = (sight.look.seen for sight in sights)
    return next((one for one in seen if one and one.level is Level.FINALIZED), None)


def expired(sights: Sequence[Sight], last_valid_height: int) -> bool:
    """Whether a transaction can neither have landed nor land any more.

    Nobody sees it at all, and one endpoint whose finalized height is past the last valid one does
    not see it from a view at least as new as that height; an older view, as of a lagging node
    behind the same address, is no evidence.
    """
    if any(sight.look.seen for sight in sights):
        return False
    return any(
        sight.tip.height > last_valid_height and sight.look.slot >= sight.tip.slot
        for sight in sights
    )
