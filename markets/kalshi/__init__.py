"""Kalshi: event contracts that settle at 1 or 0. Wire formats stop at this folder's edge."""
