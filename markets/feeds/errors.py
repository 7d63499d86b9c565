"""The one error of live feeds: whoever supervises a feed catches this and nothing wider."""

from core.errors import LockstepError


class FeedError(LockstepError):
    """A venue cannot be reached, or keeps refusing what it is asked."""
