"""What a benchmark leaves for a paper: tables, figures, and one static HTML page that opens without a network."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from deft_ct.evaluation.benchmark_diff import p_text
from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.summary import best_method, finished, paired_frame, records, summary_frame
from deft_ct.report.benchmark_figures import PAGE_COLORS, box_figure, inline_svg, save_figure, time_figure
from deft_ct.report.benchmark_tables import (
    ProblemTable,
    conventions,
    notes_of,
    problem_tables,
    tables_latex,
    tables_markdown,
)
from deft_ct.report.figures import FOOTER
from deft_ct.runtime.atomic import write_text

__all__ = ["PAGE", "PageExtras", "write_benchmark_outputs"]

PAGE = "benchmark.html"
"""Name of the page in the folder of a benchmark."""
FIGURES = "figures"
"""Folder of the figures, beside the page."""


@dataclass(frozen=True, kw_only=True)
class PageExtras:
    """What a benchmark knows beyond its rows.

    Attributes:
        panels: PNG files of :func:`~deft_ct.report.benchmark_panels.draw_panels`.
        measured: how the data were made and the metrics were taken, in words.
        group_noun: what the column ``patient`` names, see ``Problem.group_noun``.
    """

    panels: Sequence[Path] = ()
    measured: str = ""
    group_noun: str = "patient"


def write_benchmark_outputs(
    folder: Path, rows: pd.DataFrame, metrics: Sequence[Metric], extras: PageExtras | None = None
) -> None:  # fmt: skip
    """Write everything that is made of the rows of a benchmark; the same rows give the same bytes.

    ``summary.csv`` has every metric with its intervals, ``summary.md`` and ``summary.tex`` the metrics of the table.
    ``figures/`` has box plots and quality against time, as PNG and SVG. ``benchmark.html`` is one page with all of it,
    and with pictures of some images. Methods that failed are lines with their reason.

    Args:
        folder: of the benchmark.
        rows: see :mod:`deft_ct.evaluation.summary`.
        metrics: of the benchmark.
        extras: pictures, and words on the data.

    Raises:
        ValueError: there are no rows, or columns are missing.
        WriteError: a file cannot be written.
    """
    extras = extras or PageExtras()
    summary = summary_frame(rows, metrics)
    shown = [metric for metric in metrics if metric.in_table]
    tables, notes = problem_tables(rows, summary, shown), notes_of(summary)
    noun = extras.group_noun
    spoken = summary.rename(columns=lambda name: str(name).replace("patients", f"{noun}s"))
    write_text(folder / "summary.csv", spoken.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "summary.md", tables_markdown(tables, notes, noun, extras.measured))
    write_text(folder / "summary.tex", tables_latex(tables, notes, noun))
    drawn = [metric for metric in shown if finished(rows)[metric.key].notna().any()]
    for metric in drawn:
        save_figure(box_figure(rows, metric), folder / FIGURES / f"box_{metric.key}")
        save_figure(time_figure(summary, metric), folder / FIGURES / f"time_{metric.key}")
    write_text(folder / PAGE, _page(rows, summary, tables, drawn, metrics, extras))


def _page(
    rows: pd.DataFrame, summary: pd.DataFrame, tables: list[ProblemTable], drawn: list[Metric],
    metrics: Sequence[Metric], extras: PageExtras,
) -> str:  # fmt: skip
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        files("deft_ct").joinpath("assets", "report", "benchmark.html.j2").read_text(encoding="utf-8")
    )
    hidden = [metric for metric in metrics if not metric.in_table]
    page: str = template.render(
        title="Benchmark", footer=FOOTER, conventions=conventions(extras.group_noun), tables=tables,
        group=extras.group_noun,
        counts=_counts(rows, extras.group_noun), best=[_leader(table) for table in tables], notes=notes_of(summary),
        paired=[_paired(rows, table) for table in tables],
        figures=[
            {
                "heading": metric.heading,
                "box": inline_svg(box_figure(rows, metric, colors=PAGE_COLORS), f"{metric.heading} of every image"),
                "time": inline_svg(time_figure(summary, metric, colors=PAGE_COLORS), f"{metric.heading} against time"),
            }
            for metric in drawn
        ],
        panels=_panels(extras.panels), measured=extras.measured,
        more=problem_tables(rows, summary, hidden) if hidden else [],
        protocols=_protocols(rows), records=_records(rows), sortable=_sortable,
    )  # fmt: skip
    return page


def _counts(rows: pd.DataFrame, group_noun: str) -> list[tuple[str, int]]:
    """Sizes of the benchmark in words."""
    failed = rows[rows["status"] != "ok"]
    images = rows[["data", "image_id"]].drop_duplicates()
    patients = rows[["data", "patient"]].drop_duplicates()
    problems = rows[["data", "split", "problem"]].drop_duplicates()
    found = [
        ("image", len(images)), (group_noun, len(patients)), ("problem", len(problems)),
        ("method", rows["method"].nunique()), ("seed", rows["seed"].nunique()),
    ]  # fmt: skip
    named = [(name if count == 1 else f"{name}s", count) for name, count in found]
    return [*named, *([("failed rows", len(failed))] if len(failed) else [])]


def _leader(table: ProblemTable) -> dict[str, str] | None:
    """The best method of a table by its first metric, for the top of the page."""
    for line in table.lines:
        if line.values and line.values[0].best:
            return {
                "problem": table.problem, "data": table.data, "method": line.method, "mean": line.values[0].mean,
                "heading": table.metrics[0].heading, "interval": line.values[0].patients or line.values[0].images,
            }  # fmt: skip
    return None


def _paired(rows: pd.DataFrame, table: ProblemTable) -> dict[str, Any] | None:
    """Differences from the best method by the first metric of the table."""
    if not table.metrics:
        return None
    metric = table.metrics[0]
    split = rows["split"].fillna("").astype(str)
    own = rows[(rows["data"] == table.data) & (split == table.split) & (rows["problem"] == table.problem)]
    best = best_method(own, metric)
    if best is None or own["method"].nunique() < 2:
        return None
    digits = metric.digits

    def signed(low: float, high: float) -> str:
        return "-" if math.isnan(low) or math.isnan(high) else f"{low:+.{digits}f} to {high:+.{digits}f}"

    lines = [
        {
            "method": line["method"], "difference": f"{line['difference']:+.{digits}f}",
            "number": line["difference"], "images": signed(line["low"], line["high"]),
            "patients": signed(line["patients_low"], line["patients_high"]), "p": p_text(line["p_value"]),
            "count": f"{line['images']} / {line['patients']}", "verdict": line["verdict"],
            "smallest": p_text(line["smallest_p"]),
        }
        for line in records(paired_frame(own, metric, against=best))
    ]  # fmt: skip
    return {"best": best, "title": table.title, "heading": metric.heading, "lines": lines}


def _panels(paths: Sequence[Path]) -> list[dict[str, str]]:
    """The pictures, embedded."""
    return [{"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode("ascii")} for path in paths]


def _protocols(rows: pd.DataFrame) -> list[str]:
    """The different protocols, as indented JSON."""
    return [_indented(text) for text in rows.get("protocol", pd.Series(dtype=str)).dropna().unique()]


def _records(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Method and problem -> what was recorded of its first image."""
    if "provenance" not in rows.columns:
        return []
    first = finished(rows).drop_duplicates(["problem", "method"])
    return [
        (f"{line['method']}, {line['problem']}", _indented(line["provenance"]))
        for line in records(first)
        if line["provenance"]
    ]


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, sort_keys=True)
    except ValueError:
        return text


def _sortable(number: float) -> str:
    """A number as the page sorts by; empty ones come last."""
    return "" if math.isnan(number) else repr(float(number))
