"""The figure, the tables and the HTML report say what the numbers are and survive odd input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markdown_tables import unpadded
from matplotlib import rcParams
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from deft_ct.problems.ct_metrics import evaluate
from deft_ct.report import (
    FOOTER,
    FigureStyle,
    Report,
    Row,
    Window,
    comparison_figure,
    metrics_json,
    metrics_markdown,
    metrics_table,
    save_png,
    write_html,
)

Volume = NDArray[np.float32]


@pytest.fixture(scope="module")
def truth() -> Volume:
    y, x = np.mgrid[:64, :64] - 31.5
    disk = np.where(np.hypot(x, y) < 24, 40.0, -1000.0)
    return np.stack([disk, disk + 20 * (disk > 0)] * 2).astype(np.float32)


@pytest.fixture(scope="module")
def recons(truth: Volume) -> dict[str, Volume]:
    rng = np.random.default_rng(0)
    noises = {"FBP": 100.0, "TV": 40.0, "DEFT mean": 30.0}
    return {name: truth + rng.normal(0, std, truth.shape).astype(np.float32) for name, std in noises.items()}


@pytest.fixture(scope="module")
def rows(truth: Volume, recons: dict[str, Volume]) -> list[Row]:
    seconds = {"FBP": 0.01, "TV": 1.5, "DEFT mean": None}
    return [
        Row(method=name, metrics=evaluate(image, truth), seconds_per_slice=seconds[name])
        for name, image in recons.items()
    ]


def texts(figure: object) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(match=lambda o: hasattr(o, "get_text")))  # type: ignore[attr-defined]


def test_comparison_png(truth: Volume, recons: dict[str, Volume], tmp_path: Path) -> None:
    spread = np.full_like(truth, 25.0)
    before = dict(rcParams)
    figure = comparison_figure(truth, recons, spread, slice_index=0, style=FigureStyle(title="60 views"))
    first = save_png(figure, tmp_path / "a.png").read_bytes()
    again = comparison_figure(truth, recons, spread, slice_index=0, style=FigureStyle(title="60 views"))
    assert save_png(again, tmp_path / "b.png").read_bytes() == first
    assert dict(rcParams) == before

    words = texts(figure)
    metrics = evaluate(recons["TV"], truth)
    assert f"TV\n{metrics.psnr[0]:.1f} dB, {metrics.rmse_hu[0]:.0f} HU" in words
    assert "DEFT mean - truth, HU" in words and "60 views" in words
    assert FOOTER in words and "2000 HU" in words
    assert "uncalibrated spread\nstandard deviation, HU" in words
    calibrated = texts(comparison_figure(truth, recons, spread, calibrated=True))
    assert "calibrated spread" in calibrated and "uncalibrated" not in calibrated
    assert "level -600, width 1500 HU" in words and "level 40, width 400 HU" in words
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 1500 and picture.size[1] > 500
        assert np.asarray(picture.convert("L")).std() > 20
        assert not {"Software", "Creation Time"} & picture.info.keys()


def test_images_are_shown_as_they_are(truth: Volume, recons: dict[str, Volume]) -> None:
    spread = np.full_like(truth, 25.0)
    figure = comparison_figure(truth, recons, spread, slice_index=1, error_of="FBP")
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(images) == 2 * 6
    lung, soft = images[:6], images[6:]
    assert lung[0].get_clim() == (-1350.0, 150.0) and soft[0].get_clim() == (-160.0, 240.0)
    for row in (lung, soft):
        for picture, expected in zip(row, [truth, *recons.values(), spread], strict=False):
            np.testing.assert_array_equal(picture.get_array(), expected[1])
        np.testing.assert_allclose(row[5].get_array(), recons["FBP"][1] - truth[1], atol=1e-4)
        low, high = row[5].get_clim()
        assert low == -high


def test_one_method_without_spread(truth: Volume, recons: dict[str, Volume]) -> None:
    narrow = Window(name="narrow", level=40, width=80, spread_limit=10, error_limit=20)
    figure = comparison_figure(truth[0], {"FBP": recons["FBP"][0]}, style=FigureStyle(windows=(narrow,)))
    assert len([axis for axis in figure.axes if axis.images]) == 3
    assert "spread" not in texts(figure)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t, r: comparison_figure(t, {}), "at least one reconstruction"),
        (lambda t, r: comparison_figure(t, {"FBP": t[:, :-1]}), r"FBP must have the shape of truth, \(64, 64\), got"),
        (lambda t, r: comparison_figure(t, r, t[:, ::2]), "spread must have the shape of truth"),
        (lambda t, r: comparison_figure(t, r, slice_index=4), "slice_index must be between 0 and 3, got 4"),
        (lambda t, r: comparison_figure(t, r, error_of="DPS"), "error_of must be one of .*'TV'.*, got 'DPS'"),
        (lambda t, r: comparison_figure(t[None], r), "truth must be"),
        (lambda t, r: Window(name="w", level=0, width=0, spread_limit=1, error_limit=1), "width of a window"),
        (lambda t, r: metrics_table([]), "at least one row"),
    ],
)
def test_bad_input_is_named(
    call: Callable[[Volume, dict[str, Volume]], object], message: str, truth: Volume, recons: dict[str, Volume]
) -> None:
    with pytest.raises(ValueError, match=message):
        call(truth, recons)


def test_tables_state_their_conventions(rows: list[Row]) -> None:
    console = Console(width=120, record=True, force_terminal=False, file=None, quiet=True)
    table = metrics_table(rows, title="demo [red]x[/red]")
    console.quiet = False
    with console.capture() as captured:
        console.print(table)
    printed = captured.get()
    assert "demo [red]x[/red]" in printed
    markdown = metrics_markdown(rows)
    for text in (printed, markdown):
        assert "data range 2000 HU" in text and "inside the body" in text and "4 slices" in text
        for row in rows:
            assert row.method in text
            assert f"{row.metrics.psnr.mean():.2f}" in text and f"{row.metrics.rmse_hu.mean():.1f}" in text
    lines = unpadded(markdown).splitlines()
    assert len({line.count("|") for line in lines[: 2 + len(rows)]}) == 1
    assert lines[2].endswith("| 0.01 |") and lines[4].endswith("| - |")


def test_json_is_strict_and_complete(rows: list[Row], truth: Volume) -> None:
    perfect = Row(method="truth", metrics=evaluate(truth, truth))
    text = json.dumps(metrics_json([*rows, perfect]), allow_nan=False)
    loaded = json.loads(text)
    tv = loaded[1]
    assert tv["method"] == "TV" and tv["data_range_hu"] == 2000.0 and tv["slices"] == 4
    psnr = tv["metrics"]["psnr"]
    assert psnr["low"] <= psnr["mean"] <= psnr["high"]
    np.testing.assert_allclose(psnr["per_slice"], rows[1].metrics.psnr)
    assert loaded[3]["metrics"]["psnr"]["mean"] is None
    assert loaded[3]["metrics"]["rmse_hu"]["mean"] == 0.0


def test_rows_that_cannot_be_compared_are_refused(rows: list[Row], truth: Volume, recons: dict[str, Volume]) -> None:
    other_range = Row(method="x", metrics=evaluate(recons["TV"], truth, data_range_hu=4000.0))
    with pytest.raises(ValueError, match="share data range and slices"):
        metrics_markdown([*rows, other_range])
    fewer = Row(method="x", metrics=evaluate(recons["TV"][:2], truth[:2]))
    with pytest.raises(ValueError, match="share data range and slices"):
        metrics_table([*rows, fewer])


class _Tags(HTMLParser):
    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_self_contained(rows: list[Row], truth: Volume, recons: dict[str, Volume], tmp_path: Path) -> None:
    picture = save_png(comparison_figure(truth, recons), tmp_path / "comparison.png")
    provenance = {"seed": 7, "note": "<b>&"}
    report = Report(title="A <i>", figures={"all methods": picture}, rows=rows, provenance=provenance)
    path = write_html(tmp_path / "report.html", report)
    page = path.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.links) == 1 and tags.links[0].startswith("data:image/png;base64,")
    assert not re.search(r"https?://", page)
    assert FOOTER in page and "data range 2000 HU" in page
    assert "A &lt;i&gt;" in page and "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert page.count("<tr>") == 1 + len(rows)
    bare = write_html(tmp_path / "bare.html", Report(title="measured data", figures={}))
    assert "<table>" not in bare.read_text()
    with pytest.raises(FileNotFoundError):
        write_html(tmp_path / "x.html", Report(title="x", figures={"gone": tmp_path / "gone.png"}))
    with pytest.raises(TypeError):
        write_html(tmp_path / "y.html", Report(title="y", figures={}, provenance={"path": tmp_path}))
    assert not (tmp_path / "x.html").exists() and not (tmp_path / "y.html").exists()
