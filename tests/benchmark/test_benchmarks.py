"""The benchmarks run: short forms that look at what holds on any machine, and print the rest."""

import pytest
from latency import STAGES
from latency import measure as measure_latency
from soak import FILES_MORE_MAX, GROWTH_MAX, Plan, soak, table


@pytest.mark.slow
def test_a_day_more_costs_the_daemon_nothing() -> None:
    plan = Plan(days=2, instruments=5)
    figures = soak(plan)
    first, last = figures.days
    for what, measured, bar, _met in table(plan, figures):
        print(what, measured, bar)
    assert figures.growth < GROWTH_MAX
    assert last.tasks <= first.tasks
    assert last.files <= first.files + FILES_MORE_MAX
    assert figures.bars == 2 * 288 * 5
    assert figures.trades > 100
    assert figures.scrapes > 0


@pytest.mark.slow
def test_every_stage_of_an_order_is_measured() -> None:
    figures = measure_latency(2, 12)
    assert figures.keys() == STAGES.keys()
    assert all(0.0 < p50 <= p99 for p50, p99 in figures.values())
    stages = list(STAGES)[:5]
    assert sum(figures[stage][0] for stage in stages) < 2 * figures["last"][1]
