"""Sweeps: one strategy under many parameters, on the very step that the daemon trades with."""
