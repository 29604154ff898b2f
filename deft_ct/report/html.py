"""One self-contained HTML file: viewer, figures, metrics, provenance. It opens without a network and can be mailed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from deft_ct.report.chain_viewer import ViewedChain, chains_html
from deft_ct.report.figures import FOOTER
from deft_ct.report.tables import Row, metrics_html, metrics_json
from deft_ct.report.viewer import VolumeView, viewer_html
from deft_ct.runtime.atomic import write_text

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline';
 script-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222; }}
.notice {{ background: #fff3cd; border: 1px solid #e0c36a; padding: .5rem 1rem; font-weight: 600; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ border: 1px solid #ccc; padding: .3rem .7rem; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; height: auto; }}
figure {{ margin: 1rem 0; }}
.wide {{ overflow-x: auto; }}
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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows, in this order.

    Attributes:
        title: heading.
        notice: what the result is not for, above everything else.
        warnings: sentences on the data and the result that a reader must see first.
        rows: metrics of the methods; no table when empty (a measurement without a truth).
        view: the volume to scroll through.
        chains: chains of C-alpha atoms to turn.
        figures: caption -> PNG file, embedded in this order.
        provenance: versions, seeds, hashes, settings: shown as JSON as it is, so it must not hold patient data.
    """

    title: str
    figures: Mapping[str, Path]
    rows: Sequence[Row] = ()
    warnings: Sequence[str] = ()
    provenance: Mapping[str, Any] | None = None
    view: VolumeView | None = None
    chains: Sequence[ViewedChain] = ()
    notice: str = FOOTER


def write_html(path: str | Path, report: Report) -> Path:
    """Write a report.

    Args:
        path: file to write; its folder must exist.
        report: what it shows.

    Returns:
        The path.

    Raises:
        FileNotFoundError: a figure does not exist.
        TypeError: ``provenance`` holds what JSON cannot.
    """
    parts = []
    if report.warnings:
        parts += ["<h2>Warnings</h2>", "<ul>", *(f"<li>{escape(text)}</li>" for text in report.warnings), "</ul>"]
    if report.rows:
        parts += ["<h2>Metrics</h2>", f'<div class="wide">{metrics_html(report.rows)}</div>']
    if report.view is not None:
        parts.append(viewer_html(report.view))
    if report.chains:
        parts.append(chains_html(report.chains))
    for caption, picture in report.figures.items():
        data = base64.b64encode(Path(picture).read_bytes()).decode("ascii")
        parts.append(
            f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    if report.rows:
        parts += [
            "<details><summary>Metrics per slice</summary>",
            f"<pre>{escape(json.dumps(metrics_json(report.rows), indent=1))}</pre></details>",
        ]
    if report.provenance is not None:
        shown = escape(json.dumps(report.provenance, indent=2, sort_keys=True))
        parts += ["<h2>Provenance</h2>", f"<pre>{shown}</pre>"]
    target = Path(path)
    page = _PAGE.format(title=escape(report.title), notice=escape(report.notice), body="\n".join(parts))
    write_text(target, page)
    return target
