"""One self-contained HTML file: figures embedded, metrics, provenance. It opens without a network and can be mailed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from deft_ct.report.figures import FOOTER
from deft_ct.report.tables import Row, metrics_html, metrics_json
from deft_ct.runtime.atomic import write_text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222; }}
.notice {{ background: #fff3cd; border: 1px solid #e0c36a; padding: .5rem 1rem; font-weight: 600; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ border: 1px solid #ccc; padding: .3rem .7rem; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; height: auto; }}
figure {{ margin: 1rem 0; }}
pre {{ background: #f6f6f6; padding: 1rem; overflow-x: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="notice">{notice}</p>
{body}
</body>
</html>
"""


def write_html(
    path: str | Path,
    *,
    title: str,
    figures: Mapping[str, Path],
    rows: Sequence[Row] = (),
    warnings: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    notice: str = FOOTER,
) -> Path:
    """Write a report.

    Args:
        path: file to write; its folder must exist.
        title: heading.
        figures: caption -> PNG file, embedded in this order.
        rows: metrics of the methods; no table when empty (a measurement without a truth).
        warnings: sentences on the data and the result that a reader must see first.
        provenance: versions, seeds, hashes, settings: shown as JSON as it is, so it must not hold patient data.
        notice: what the result is not for, above everything else.

    Returns:
        The path.

    Raises:
        FileNotFoundError: a figure does not exist.
        TypeError: ``provenance`` holds what JSON cannot.
    """
    parts = []
    if warnings:
        parts += ["<h2>Warnings</h2>", "<ul>", *(f"<li>{escape(text)}</li>" for text in warnings), "</ul>"]
    if rows:
        parts += ["<h2>Metrics</h2>", metrics_html(rows)]
    for caption, picture in figures.items():
        data = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
        parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if rows:
        parts += [
            "<details><summary>Metrics per slice</summary>",
            f"<pre>{escape(json.dumps(metrics_json(rows), indent=1))}</pre></details>",
        ]
    if provenance is not None:
        parts += ["<h2>Provenance</h2>", f"<pre>{escape(json.dumps(provenance, indent=2, sort_keys=True))}</pre>"]
    target = Path(path)
    page = _PAGE.format(title=escape(title), notice=escape(notice), body="\n".join(parts))
    write_text(target, page)
    return target
