"""``deft-ct benchmark diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.evaluation.parquet_store import read_metrics, read_rows
from deft_ct.evaluation.problem import Metric

if TYPE_CHECKING:
    import pandas as pd


def benchmark_diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a benchmark.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the benchmark that is compared with it.")],
) -> None:
    """Compare two benchmarks image by image: B minus A of each method and metric, as Markdown.

    Intervals and p-values are over patients. It also says what only one of them has, and which settings differ.
    """
    with one_line_errors():
        from deft_ct.evaluation.benchmark_diff import diff_markdown, diff_table  # they need pandas

        (first, metrics), (second, others) = _read(a), _read(b)
        shared = [metric for metric in metrics if metric.in_table and metric.key in {other.key for other in others}]
        if not shared:
            raise ValueError(f"{a} and {b} have no metric in common")
        typer.echo(diff_markdown(diff_table(first, second, shared), shared))


def _read(folder: Path) -> tuple[pd.DataFrame, list[Metric]]:
    """Rows and metrics of a benchmark, finished or not.

    Raises:
        FileNotFoundError: there is none.
        ReadError: a file is damaged.
        ImportError: pandas or pyarrow is missing.
    """
    try:
        return read_rows(folder), read_metrics(folder)
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'deft-ct[benchmark]'") from error
