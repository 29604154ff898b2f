"""``deft-ct benchmark diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.evaluation.parquet_store import read_metrics, read_rows
from deft_ct.runtime.extras import optional_library


def benchmark_diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a benchmark.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the benchmark that is compared with it.")],
) -> None:
    """Compare two benchmarks image by image: B minus A of each method and metric, as Markdown.

    Example: `deft-ct benchmark diff OUT_A OUT_B`

    Intervals and p-values are over patients. It also says what only one of them has, and which settings differ.
    """
    with one_line_errors():
        for library in ("pyarrow", "pandas"):
            optional_library(library, "benchmark")
        from deft_ct.evaluation.benchmark_diff import diff_markdown, diff_table  # they need pandas

        first, second = read_rows(a), read_rows(b)
        metrics, others = read_metrics(a), read_metrics(b)
        shared = [metric for metric in metrics if metric.in_table and metric.key in {other.key for other in others}]
        if not shared:
            raise ValueError(f"{a} and {b} have no metric in common")
        typer.echo(diff_markdown(diff_table(first, second, shared), shared))
