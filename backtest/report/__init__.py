"""Reports of a run for people: a page to explore, a picture to send, a line for the terminal.

The page is one file that loads nothing from anywhere, so it can be mailed, archived and opened in
ten years. plotly and matplotlib are imported when something is drawn, for they import slowly.
"""

from backtest.report.page import write_report
from backtest.report.picture import write_png
from backtest.report.sparkline import sparkline

__all__ = ["sparkline", "write_png", "write_report"]
