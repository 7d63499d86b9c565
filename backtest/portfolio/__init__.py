"""Allocation over the books of runs: how much of the account each may use, from the past alone."""
