"""From target to fill: the planner and the simulated venue of paper and replay."""
