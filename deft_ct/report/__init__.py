"""Figures, tables and the HTML report of a reconstruction."""

from deft_ct.report.calibration import calibration_figure
from deft_ct.report.figures import FOOTER, FigureStyle, Window, comparison_figure, save_png
from deft_ct.report.html import Report, write_html
from deft_ct.report.panels import panel_figure
from deft_ct.report.tables import Row, metrics_json, metrics_markdown, metrics_table

__all__ = [
    "FOOTER",
    "FigureStyle",
    "Report",
    "Row",
    "Window",
    "calibration_figure",
    "comparison_figure",
    "metrics_json",
    "metrics_markdown",
    "metrics_table",
    "panel_figure",
    "save_png",
    "write_html",
]
