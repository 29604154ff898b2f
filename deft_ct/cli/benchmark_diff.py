"""``deft-ct benchmark diff``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.evaluation.problem import Metric

if TYPE_CHECKING:
    import pandas as pd

RESULTS, METRICS = "results.parquet", "metrics.json"


def benchmark_diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of a finished benchmark.")],
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
    """Rows and metrics of a finished benchmark.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is damaged.
        ImportError: pandas or pyarrow is missing.
    """
    for name in (RESULTS, METRICS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no finished benchmark ({name} is missing): run it again to finish")
    try:
        import pandas as pd
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: pip install 'deft-ct[benchmark]'") from error
    try:
        # Not by its path: a name such as `a=b` in it would be read as a column.
        rows = pd.DataFrame(pq.ParquetFile(folder / RESULTS).read().to_pandas())
        metrics = [Metric(**item) for item in json.loads((folder / METRICS).read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder} holds no benchmark that can be read: {error}") from error
    return rows, metrics
