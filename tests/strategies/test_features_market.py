"""The eight market features: one unit, one meaning, and NaN where an input is missing."""

import numpy as np
import pytest
import talib
from feature_drive import answers, bars

from core.model import MARKET
from strategies.features import FEATURES


def one(name, **fields):
    market = np.full(1, np.nan, [(field, "f8") for field in MARKET.names]).astype(MARKET)
    for field, value in fields.items():
        market[field] = value
    return answers(FEATURES[name], market)[0]


def test_body_over_atr_is_the_body_in_true_ranges():
    market = bars(200)
    atr = talib.ATR(market["high"], market["low"], market["close"], 14)
    wanted = np.abs(market["close"] - market["open"]) / atr
    np.testing.assert_allclose(answers(FEATURES["body_over_atr"], market), wanted, rtol=1e-9)


def test_volume_z_looks_at_the_bars_before():
    market = bars(40)
    market["volume"] = [1.0, 3.0] * 20
    market["volume"][20] = 12.0
    assert answers(FEATURES["volume_z"], market, window=4)[20] == (12 - 2) / 1


def test_volume_z_after_equal_volumes_is_zero_or_unknown():
    market = bars(40)
    market["volume"] = 5.0
    market["volume"][30] = 6.0
    ours = answers(FEATURES["volume_z"], market, window=10)
    assert ours[29] == 0
    assert np.isnan(ours[30])
    assert ours[31] < 0


@pytest.mark.parametrize(
    ("bid_depth", "ask_depth", "wanted"),
    [(3, 1, 0.75), (0, 2, 0), (2, 0, 1), (0, 0, np.nan), (np.nan, 1, np.nan), (-1, 3, np.nan)],
)
def test_ob_imbalance_is_the_bid_share(bid_depth, ask_depth, wanted):
    np.testing.assert_equal(one("ob_imbalance", bid_depth=bid_depth, ask_depth=ask_depth), wanted)


@pytest.mark.parametrize(
    ("quote", "wanted"),
    [
        ({"mark": 101, "oracle": 100}, 0.01),
        ({"mark": 101, "oracle": 100, "bid": 1, "ask": 2}, 0.01),
        ({"bid": 98, "ask": 100, "oracle": 100}, -0.01),
        ({"oracle": 100}, np.nan),
        ({"bid": 98, "oracle": 100}, np.nan),
        ({"bid": 102, "ask": 100, "oracle": 100}, np.nan),
        ({"mark": 101}, np.nan),
        ({"mark": 101, "oracle": 0}, np.nan),
    ],
)
def test_premium_is_a_fraction_of_the_oracle(quote, wanted):
    np.testing.assert_allclose(one("premium", **quote), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("bid", "ask", "wanted"),
    [(99, 101, 200), (100, 100, 0), (101, 99, np.nan), (np.nan, 1, np.nan), (0, 0, np.nan)],
)
def test_spread_is_in_basis_points_of_the_middle(bid, ask, wanted):
    np.testing.assert_equal(one("spread_bps", bid=bid, ask=ask), wanted)


def test_funding_and_open_interest_are_what_is_known():
    assert one("funding_rate", funding_rate=-1e-5) == -1e-5
    assert one("open_interest", open_interest=123.0) == 123.0
    assert np.isnan(one("open_interest"))


def test_realized_vol_of_equal_steps_is_zero_and_of_alternating_ones_their_size():
    market = bars(100)
    market["close"] = 100 * np.exp(np.where(np.arange(100) % 2, 0.01, 0.0))
    ours = answers(FEATURES["realized_vol"], market, window=10)
    assert ours[-1] == pytest.approx(0.01)
    year = answers(FEATURES["realized_vol_annual"], market, window=10, bars_per_year=10_000)
    assert year[-1] == pytest.approx(1.0)
