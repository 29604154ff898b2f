"""What a benchmark leaves: tables that say everything, figures, and a page that needs no network."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from benchmark_rows import METRICS, PSNR, RMSE, benchmark_rows, failed_row
from PIL import Image

from deft_ct.evaluation.summary import summary_frame
from deft_ct.report.benchmark_figures import PAGE_COLORS, box_figure, inline_svg, time_figure
from deft_ct.report.benchmark_page import PageExtras, write_benchmark_outputs
from deft_ct.report.benchmark_tables import latex_text, notes_of, problem_tables, tables_latex
from deft_ct.report.figures import FOOTER

REASON = "ddrm needs a <singular> value decomposition & RayTransform has none_100%"
NOTE = "1000 views are outside the training: TV was used"


def rows_with_everything() -> pd.DataFrame:
    """Two problems; a method that fails everywhere, one that fails on two images, and one with a note."""
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0, "deft": 33.0}, problems=("parallel60_1e5", "fan60_1e5"), slices=3)
    rows.loc[rows["method"] == "deft", "note"] = NOTE
    some = rows[(rows["method"] == "tv") & (rows["problem"] == "fan60_1e5")].index[:2]
    rows.loc[some, ["status", "reason"]] = ["failed", "tv diverged"]
    rows.loc[some, [metric.key for metric in METRICS]] = np.nan
    return pd.concat([rows, failed_row(rows, "ddrm", REASON)], ignore_index=True)


class Page(HTMLParser):
    """Tags, addresses and visible text; open tags must be closed."""

    VOID: ClassVar[set[str]] = {"meta", "img", "br", "link", "path", "use", "rect", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if not {"style", "script"} & set(self.open) else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark")
    (path / "panels").mkdir()
    Image.new("RGB", (8, 6), "red").save(path / "panels" / "parallel60-slice.png")
    panels = [path / "panels" / "parallel60-slice.png"]
    write_benchmark_outputs(path, rows_with_everything(), METRICS, PageExtras(panels=panels, measured="Two phantoms."))
    return path


def test_every_file_is_there_and_the_same_rows_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    figures = {f"figures/{kind}_{key}.{ext}" for kind in ("box", "time") for ext in ("png", "svg")
               for key in ("psnr_db", "ssim", "rmse_body_hu")}  # fmt: skip
    assert names == {
        "benchmark.html", "summary.csv", "summary.md", "summary.tex", "panels/parallel60-slice.png", *figures,
    }  # fmt: skip
    (tmp_path / "panels").mkdir()
    (tmp_path / "panels" / "parallel60-slice.png").write_bytes((folder / "panels/parallel60-slice.png").read_bytes())
    panels = [tmp_path / "panels" / "parallel60-slice.png"]
    write_benchmark_outputs(
        tmp_path, rows_with_everything(), METRICS, PageExtras(panels=panels, measured="Two phantoms.")
    )
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_page_stands_alone_and_holds_everything(folder: Path) -> None:
    text = (folder / "benchmark.html").read_text()
    page = Page(text)
    assert not page.open
    local = ("#", "data:image/png;base64,")
    outside = {a for a in page.addresses if not a.startswith(local)}
    assert outside == {"summary.csv", "summary.tex", "summary.md"}
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).replace(FOOTER, "")
    assert page.text.count(FOOTER) == 2
    assert page.tags.count("img") == 1 and page.tags.count("svg") == 6
    for said in (REASON, NOTE, "tv diverged", "10 of 12", "2 failed", "0 of 1", "Differences from the best"):
        assert said in page.text, said
    assert "<singular>" not in text  # escaped
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "#a1000" not in text and "var(--accent)" in text  # figures follow the theme
    assert "bias in body (HU)" in page.text  # in the fold of further metrics


def test_the_csv_has_every_metric_with_both_intervals(folder: Path) -> None:
    with (folder / "summary.csv").open() as file:
        lines = {(line["problem"], line["method"]): line for line in csv.DictReader(file)}
    assert len(lines) == 7
    deft = lines["parallel60_1e5", "deft"]
    low, mean, high = (float(deft[f"bias_body_hu{end}"]) for end in ("_patients_low", "", "_patients_high"))
    assert low < mean < high and deft["note"] == NOTE and deft["images"] == "12"
    failed = lines["parallel60_1e5", "ddrm"]
    assert failed["reason"] == REASON and failed["psnr_db"] == "" and failed["failed"] == "1"


def test_markdown_has_failed_lines_footnotes_and_the_best_in_bold(folder: Path) -> None:
    text = (folder / "summary.md").read_text()
    assert text.count("### ") == 2 and text.count("| ddrm ^") == 1 and "failed (1)" in text
    assert "Two phantoms." in text and "Two phantoms." in (folder / "benchmark.html").read_text()
    assert f"- ^a^ {NOTE}" in text and "^ tv diverged" in text and "10 of 12 / 4 patients" in text
    bold = re.findall(r"^\| (\S+).*\*\*", text, re.MULTILINE)
    assert bold == ["deft", "deft"]
    assert FOOTER in text


def test_latex_is_balanced_and_escaped(folder: Path) -> None:
    text = (folder / "summary.tex").read_text()
    assert r"none\_100\%" in text and r"\textless{}singular\textgreater{}" in text and r"decomposition \& Ray" in text
    for rule in ("toprule", "midrule", "bottomrule", "end{tabular}"):
        assert text.count(f"\\{rule}") == 2
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == 9 and {line.count(" & ") for line in body} == {8}
    assert text.count(r"\textbf{") == 6 and text.count("{") == text.count("}")
    assert latex_text("a_b{c}\\d~e^f#g$h") == (
        r"a\_b\{c\}\textbackslash{}d\textasciitilde{}e\textasciicircum{}f\#g\$h"
    )  # fmt: skip


def test_one_patient_has_the_interval_over_images(tmp_path: Path) -> None:
    rows = benchmark_rows({"fbp": 26.0, "tv": 31.0}, patients=1)
    summary = summary_frame(rows, METRICS)
    (table,) = problem_tables(rows, summary, [PSNR])
    assert table.lines[0].values[0].patients == "" and table.lines[0].values[0].images
    assert table.lines[0].values[0].images in tables_latex([table], notes_of(summary), "patient")
    write_benchmark_outputs(tmp_path, rows, [PSNR])
    assert "patients [" not in (tmp_path / "benchmark.html").read_text()


def test_when_everything_failed_there_is_still_a_page(tmp_path: Path) -> None:
    rows = failed_row(benchmark_rows({"tv": 30.0}), "ddrm", REASON)
    write_benchmark_outputs(tmp_path, rows, METRICS)
    page = Page((tmp_path / "benchmark.html").read_text())
    assert REASON in page.text and "svg" not in page.tags and not (tmp_path / "figures").exists()
    with pytest.raises(ValueError, match="no rows"):
        write_benchmark_outputs(tmp_path, rows.iloc[:0], METRICS)


def test_texts_of_records_that_are_not_json_and_hostile_names_do_no_harm(tmp_path: Path) -> None:
    rows = benchmark_rows({"<script>alert(1)</script>": 30.0, "tv": 31.0}).assign(provenance="not JSON", split=None)
    write_benchmark_outputs(tmp_path, rows, [PSNR])
    text = (tmp_path / "benchmark.html").read_text()
    assert "<script>alert" not in text and "not JSON" in text and text.count("<script>") == 1
    assert "(nan)" not in text and "None" not in text


def test_figures_show_every_method_of_every_problem() -> None:
    rows = rows_with_everything()
    box, time = box_figure(rows, PSNR), time_figure(summary_frame(rows, METRICS), RMSE)
    assert [axis.get_title(loc="left") for axis in box.axes] == ["parallel60_1e5", "fan60_1e5"]
    assert [label.get_text() for label in box.axes[0].get_yticklabels()] == ["deft", "tv", "fbp"]
    for axis in time.axes:
        assert {text.get_text() for text in axis.texts} == {"fbp", "tv", "deft"}
        assert axis.get_xscale() == "log" and "lower is better" in axis.get_ylabel()
    # The front of a metric without a direction would mean nothing.
    plain = time_figure(summary_frame(rows, METRICS), replace(PSNR, best=None))
    assert len(plain.axes[0].lines) == len(time.axes[0].lines) - 1
    with pytest.raises(ValueError, match="no method has a value of psnr_db"):
        box_figure(rows.assign(psnr_db=np.nan), PSNR)


def test_an_inline_figure_is_one_element_without_a_size_of_its_own() -> None:
    text = inline_svg(box_figure(benchmark_rows({"tv": 31.0}), PSNR, colors=PAGE_COLORS), 'PSNR "<b>"')
    head = text[: text.index(">")]
    assert text.startswith("<svg") and 'aria-label="PSNR &quot;&lt;b&gt;&quot;"' in head
    assert " width=" not in head and " height=" not in head and "viewBox" in head
    assert "<metadata" not in text and "DejaVu" not in text


def test_protocols_and_records_are_shown_once(folder: Path) -> None:
    page = Page((folder / "benchmark.html").read_text())
    assert page.text.count(json.dumps({"strength": 0.1}, indent=2).strip("{}\n ")) == 6  # one for each method, problem
    assert page.text.count("batch_size") == 1
