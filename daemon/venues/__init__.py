"""Venues beyond this process, each put together from its market's parts and the order life."""
