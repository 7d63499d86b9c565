"""Validation that can say no: every figure that stands between a good backtest and belief in it.

A search tries many strategies and shows the luckiest. What is here counts every trial there ever
was, asks how good the best of that many without any skill would look, and answers pass or fail.
"""
