"""Hyperliquid perpetuals: public market data, live and recent."""
