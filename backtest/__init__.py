"""Backtest: the one loop over historical events, what a run leaves behind, and its reports."""
