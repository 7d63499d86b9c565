"""Drift: perpetuals on Solana. Its integers and its three funding units stop in ``units``."""
