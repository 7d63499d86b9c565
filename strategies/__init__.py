"""What to trade: features, regimes, and one idea per file."""
