"""Risk: limits, the ordered gate that alone approves, sizing, and the halt latch."""
