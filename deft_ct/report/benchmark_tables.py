"""The tables of a benchmark: one for each problem, in Markdown and LaTeX, and what the HTML page shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.summary import best_method, records
from deft_ct.evaluation.tables import markdown_table
from deft_ct.report.figures import footer_of

__all__ = [
    "ProblemTable", "TableLine", "TableValue", "conventions", "latex_text", "notes_of", "problem_tables",
    "tables_latex", "tables_markdown",
]  # fmt: skip


def conventions(group_noun: str) -> str:
    """How the numbers of the tables were taken.

    Args:
        group_noun: what images of one are not independent of each other, for example ``"patient"``.
    """
    groups = f"{group_noun}s"
    return (
        "Means over images and their standard deviation over images. In brackets the 95 % bootstrap interval of the "
        f"mean, first over images, then over {groups} (whole {groups} are drawn). Images of one {group_noun} resemble "
        f"each other, so the interval over images is too narrow for other {groups}. Bold: the best mean among the "
        "methods that finished every image."
    )


_COST_HEADINGS = {"evaluations": "evaluations", "seconds": "s / image", "peak_memory_mib": "peak MiB",
                  "data_residual": "residual"}  # fmt: skip
_COST_FORMATS = {"evaluations": ".4g", "seconds": ".3g", "peak_memory_mib": ".0f", "data_residual": ".3g"}


@dataclass(frozen=True, kw_only=True)
class TableValue:
    """A metric of a method: the mean as a number, for sorting, and texts.

    Attributes:
        number: the mean; NaN if it is undefined.
        mean: as text, a dash if it is undefined.
        std: over images, as text.
        images: interval over images, as text; empty if there is none.
        patients: interval over patients.
        best: whether it is the best of its problem.
    """

    number: float
    mean: str
    std: str
    images: str
    patients: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class TableLine:
    """A method on a problem.

    Attributes:
        method: its name.
        values: of the metrics of the table.
        costs: heading -> (number, text).
        images: with a result.
        patients: of them.
        failed: images without a result.
        reason: of the failures.
        marks: letters of the footnotes.
    """

    method: str
    values: list[TableValue]
    costs: dict[str, tuple[float, str]]
    images: int
    patients: int
    failed: int
    reason: str
    marks: str

    @property
    def count(self) -> str:
        """Images with a result, and of how many if some failed."""
        return f"{self.images} of {self.images + self.failed}" if self.failed else str(self.images)


@dataclass(frozen=True, kw_only=True)
class ProblemTable:
    """All methods on one problem.

    Attributes:
        data: name of the data set.
        split: of the data; empty if it is not known.
        problem: name of the measurement.
        metrics: of the columns.
        lines: of the methods, in the order of the benchmark.
    """

    data: str
    split: str
    problem: str
    metrics: Sequence[Metric]
    lines: list[TableLine] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Problem, data and split."""
        return f"{self.problem} on {self.data}" + (f" ({self.split})" if self.split else "")

    @property
    def headings(self) -> list[str]:
        """Of all columns."""
        return ["method", *(metric.heading for metric in self.metrics), *_COST_HEADINGS.values(), "images"]


def notes_of(summary: pd.DataFrame) -> dict[str, str]:
    """Note or reason of a failure -> letter of its footnote, in the order of the lines."""
    texts = [text for line in records(summary) for text in (line["note"], line["reason"]) if text]
    return {text: _letter(n) for n, text in enumerate(dict.fromkeys(texts))}


def problem_tables(rows: pd.DataFrame, summary: pd.DataFrame, metrics: Sequence[Metric]) -> list[ProblemTable]:
    """The tables of a benchmark.

    Args:
        rows: of the benchmark.
        summary: :func:`~deft_ct.evaluation.summary.summary_frame` of them.
        metrics: of the columns.
    """
    marks = notes_of(summary)
    tables: dict[tuple[str, str, str], ProblemTable] = {}
    best: dict[tuple[str, str, str], dict[str, str | None]] = {}
    groups = [(part, line) for part, line in zip(_parts(rows), records(summary), strict=True)]
    for place in dict.fromkeys(_place(line) for _, line in groups):
        own = pd.concat([part for part, line in groups if _place(line) == place])
        best[place] = {metric.key: best_method(own, metric) for metric in metrics}
        tables[place] = ProblemTable(data=place[0], split=place[1], problem=place[2], metrics=metrics)
    for _, line in groups:
        place = _place(line)
        found = [marks[text] for text in (line["note"], line["reason"]) if text]
        tables[place].lines.append(
            TableLine(
                method=line["method"],
                values=[_value(line, metric, line["method"] == best[place][metric.key]) for metric in metrics],
                costs={heading: _cost(line[name], _COST_FORMATS[name]) for name, heading in _COST_HEADINGS.items()},
                images=int(line["images"]),
                patients=int(line["patients"]),
                failed=int(line["failed"]),
                reason=line["reason"],
                marks=", ".join(dict.fromkeys(found)),
            )
        )
    return list(tables.values())


def _parts(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [part for _, part in rows.groupby(["data", "split", "problem", "method"], sort=False, dropna=False)]


def _place(line: dict[str, Any]) -> tuple[str, str, str]:
    return str(line["data"]), "" if pd.isna(line["split"]) else str(line["split"]), str(line["problem"])


def _letter(n: int) -> str:
    return (_letter(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)


def _value(line: dict[str, Any], metric: Metric, best: bool) -> TableValue:
    key, digits = metric.key, metric.digits
    mean = float(line[key])
    return TableValue(
        number=mean, mean="-" if math.isnan(mean) else f"{mean:.{digits}f}",
        std="" if math.isnan(line[f"{key}_std"]) else f"{line[f'{key}_std']:.{digits}f}",
        images=_interval(line[f"{key}_low"], line[f"{key}_high"], digits),
        patients=_interval(line[f"{key}_patients_low"], line[f"{key}_patients_high"], digits), best=best,
    )  # fmt: skip


def _interval(low: float, high: float, digits: int) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f}, {high:.{digits}f}"


def _cost(value: float, form: str) -> tuple[float, str]:
    return float(value), "-" if math.isnan(value) else format(value, form)


def tables_markdown(tables: Sequence[ProblemTable], notes: dict[str, str], group_noun: str, measured: str = "") -> str:
    """Tables, footnotes and conventions in Markdown.

    Args:
        tables: of the benchmark.
        notes: of :func:`notes_of`.
        group_noun: what the images are grouped by.
        measured: how the data were made and the metrics were taken, in words.
    """
    parts = []
    for table in tables:
        lines = [
            [
                line.method + (f" ^{line.marks}^" if line.marks else ""),
                *(_markdown_value(value) for value in line.values),
                *(text for _, text in line.costs.values()),
                f"{line.count} / {line.patients} {group_noun}s" if line.images else f"failed ({line.failed})",
            ]
            for line in table.lines
        ]
        parts.append(f"### {table.title}\n\n{markdown_table(table.headings, lines)}\n")
    footnotes = "".join(f"- ^{mark}^ {text}\n" for text, mark in notes.items())
    said = [footnotes] if footnotes else []
    said += [f"{measured}\n"] if measured else []
    return "\n".join([*parts, *said, f"{conventions(group_noun)}\n", f"{footer_of(group_noun)}.\n"])


def _markdown_value(value: TableValue) -> str:
    mean = f"**{value.mean}**" if value.best else value.mean
    spread = f" ± {value.std}" if value.std else ""
    return mean + spread + "".join(f" [{ends}]" for ends in (value.images, value.patients) if ends)


_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "\n": " ",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text in which LaTeX sees no command; other characters as they are, for engines that read UTF-8."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def tables_latex(tables: Sequence[ProblemTable], notes: dict[str, str], group_noun: str) -> str:
    r"""Tables in LaTeX, for ``\input``; they need the package booktabs. The interval is that over patients.

    Where there is one patient only, the interval is that over images. For photographs read photographs for patients.
    """
    parts = ["% Needs \\usepackage{booktabs}."]
    for number, table in enumerate(tables):
        lines = []
        for line in table.lines:
            mark = rf"\textsuperscript{{{line.marks}}}" if line.marks else ""
            values = [_latex_value(value) for value in line.values]
            costs = [latex_text(text) for _, text in line.costs.values()]
            count = latex_text(line.count) if line.images else "failed"
            lines.append(" & ".join([latex_text(line.method) + mark, *values, *costs, count]) + r" \\")
        used = {mark for line in table.lines for mark in line.marks.split(", ")}
        said = [rf"\textsuperscript{{{mark}}} {latex_text(text)}." for text, mark in notes.items() if mark in used]
        counts = {(line.images, line.patients) for line in table.lines if line.images and not line.failed}
        size = ", ".join(f"$n={images}$ images of {patients} {group_noun}s" for images, patients in sorted(counts))
        caption = (
            f"{latex_text(table.title)}: mean $\\pm$ standard deviation over images"
            f"{f' ({size})' if size else ''}, 95\\,\\% bootstrap interval of the mean over {group_noun}s."
        )
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{' '.join([caption, *said])}}}",
            rf"\label{{tab:benchmark-{number + 1}}}", r"\begin{tabular}{l" + "r" * (len(table.headings) - 1) + "}",
            r"\toprule", " & ".join(latex_text(heading) for heading in table.headings) + r" \\", r"\midrule", *lines,
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _latex_value(value: TableValue) -> str:
    if math.isnan(value.number):
        return "--"
    mean = rf"\textbf{{{value.mean}}}" if value.best else value.mean
    ends = value.patients or value.images
    return mean + (rf" $\pm$ {value.std}" if value.std else "") + (rf" {{\scriptsize [{ends}]}}" if ends else "")
