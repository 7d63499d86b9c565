"""What the daemon shows of itself: metrics and log lines, folded from the journal's own records."""
