"""The viewer in headless Chromium, with real keys, wheel, mouse and touch; skipped where there is no browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
from chromium import SHIFT, Page, browser
from PIL import Image

from deft_ct.report import FOOTER, Report, write_html
from deft_ct.report.viewer import Layer, ViewWindow, VolumeView

pytestmark = pytest.mark.skipif(chromium.EXECUTABLE is None, reason="no Chromium")
Z, H, W = 12, 24, 32
MARK = (9, 6, 20)
"""Slice, row and column of the first corner of a bright block of 2 x 4 x 4 voxels."""
WINDOWS = (
    ViewWindow(name="soft tissue", level=40, width=400, limit=100),
    ViewWindow(name="lung", level=-600, width=1500, limit=250),
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mean = np.full((Z, H, W), -100.0, np.float32)
    mean[:, 0, 0], mean[:, 0, 1] = -1024, 1400
    z, y, x = MARK
    mean[z : z + 2, y : y + 4, x : x + 4] = 200
    error = np.zeros_like(mean)
    error[:, H // 2 :] = 50
    error[:, : H // 2, : W // 2] = -30
    spread = np.broadcast_to(np.linspace(5, 60, Z, dtype=np.float32)[:, None, None], mean.shape).copy()
    view = VolumeView(
        layers=(
            Layer(key="mean", title="DEFT mean", kind="image", unit="HU", volume=lambda: mean),
            Layer(key="error", title="error", kind="difference", unit="HU", volume=lambda: error, subtracted="truth"),
            Layer(key="spread", title="spread", kind="map", unit="HU", volume=lambda: spread),
        ),
        spacing_zyx=(3.0, 1.0, 1.0), windows=WINDOWS, directions=("L", "P", "H"), worst=(2, "PSNR 20.00 dB"),
        metrics={"FBP": {"PSNR (dB)": [str(n) for n in range(Z)]}},
    )  # fmt: skip
    report = Report(title="report", figures={}, view=view, provenance={"seed": 0})
    return write_html(tmp_path_factory.mktemp("page") / "report.html", report)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chrome: Page, page_file: Path) -> Iterator[Page]:
    chrome.open(page_file)
    drawn(chrome, "mean axial 7")
    yield chrome
    assert chrome.problems == [] and set(chrome.requests) <= {"data", "file", "about"}


def drawn(page: Page, what: str) -> None:
    page.wait(f"document.getElementById('viewer').dataset.drawn === {what!r}")


def said(page: Page, part: str) -> str:
    return str(page.value(f"document.querySelector('[data-part={part}]').textContent"))


def canvas_box(page: Page) -> tuple[float, float, float, float]:
    """Left, top, width and height of the picture in the canvas, in the window."""
    found = page.value(
        "(() => { const c = document.querySelector('canvas.slice'); c.scrollIntoView(); "
        "const b = c.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
    )
    return tuple(found)


def pixel(page: Page, u: float, v: float) -> list[int]:
    """The colour at a place of the canvas, from 0 to 1 across and down."""
    script = (
        "(() => { const c = document.querySelector('canvas.slice'); return [...c.getContext('2d').getImageData("
        f"Math.floor({u} * c.width), Math.floor({v} * c.height), 1, 1).data].slice(0, 3); }})()"
    )
    return list(page.value(script))


def test_keys_scroll_and_choose(page: Page) -> None:
    for key, expected in (
        ("ArrowUp", "mean axial 8"), ("ArrowDown", "mean axial 7"), ("PageUp", "mean axial 12"),
        ("Home", "mean axial 1"), ("End", "mean axial 12"), ("x", "mean axial 3"), ("c", "mean coronal 13"),
        ("s", "mean sagittal 17"), ("a", "mean axial 3"), ("2", "image-of-error axial 3"), ("4", "error axial 3"),
        (" ", "image-of-error axial 3"), ("3", "spread axial 3"), (" ", "image-of-error axial 3"),
    ):  # fmt: skip
        page.key(key)
        drawn(page, expected)
    assert "worst slice: PSNR 20.00 dB" in said(page, "say")
    assert said(page, "metrics") == "slice 3PSNR (dB)FBP2"
    page.key("w")
    page.wait("document.querySelector('[data-part=width]').value === '1500'")


def test_every_control_is_reached_with_tab_and_named(page: Page) -> None:
    names = set()
    for _ in range(12):
        page.key("Tab")
        names.add(page.value(
            "(() => { const e = document.activeElement; return (e.labels?.[0] || e).textContent.trim() "
            "|| e.getAttribute('aria-label') || ''; })()"
        ))  # fmt: skip
    assert {"\N{MINUS SIGN}", "slice", "+", "Worst slice", "Compare", "level", "width"} <= names
    label = page.value("document.querySelector('canvas.slice').getAttribute('aria-label')")
    assert label == "DEFT mean, axial 7 of 12"


def test_wheel_slider_and_mouse(page: Page) -> None:
    left, top, width, height = canvas_box(page)
    x, y = left + width / 2, top + height / 2
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-40)
    drawn(page, "mean axial 8")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=80)
    drawn(page, "mean axial 6")
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseMoved", x + 50, y, button="left", buttons=1)
    page.mouse("mouseReleased", x + 50, y, button="left", clickCount=1)
    page.wait("document.querySelector('[data-part=width]').value === '500'")
    assert page.value("document.querySelectorAll('[data-list=window] input:checked').length") == 0
    page.value("(() => { const s = document.querySelector('[data-part=slider]'); s.value = 2; "
               "s.dispatchEvent(new Event('input')); })()")  # fmt: skip
    drawn(page, "mean axial 2")


def test_values_and_places_are_those_of_the_volume(page: Page) -> None:
    """A click on the block in each plane, where the head is up, says its value; its neighbour another one."""
    z, y, x = MARK
    places = {
        "a": ((x + 1.5) / W, (y + 1.5) / H),
        "c": ((x + 1.5) / W, (Z - z - 0.5) / Z),
        "s": ((y + 1.5) / H, (Z - z - 0.5) / Z),
    }  # fmt: skip
    page.key("End")
    at = [Z - 1, H // 2, W // 2]
    for key, (u, v) in places.items():
        if key == "a":
            for _ in range(Z - 1 - z):
                page.key("ArrowDown")
        page.key(key)
        left, top, width, height = canvas_box(page)
        tall, wide = {"a": (H, W), "c": (3.0 * Z, W), "s": (3.0 * Z, H)}[key]
        scale = min(width / wide, height / tall)
        px = left + (width - scale * wide) / 2 + u * scale * wide
        py = top + (height - scale * tall) / 2 + v * scale * tall
        drawn(page, {"a": "mean axial 10", "c": f"mean coronal {at[1] + 1}", "s": f"mean sagittal {at[2] + 1}"}[key])
        assert min(pixel(page, (px - left) / width, (py - top) / height)) > 150, "the block is drawn there"
        page.mouse("mousePressed", px, py, button="left", clickCount=1)
        page.mouse("mouseReleased", px, py, button="left", clickCount=1)
        page.wait("/: -?\\d+ HU$/.test(document.querySelector('[data-part=say]').textContent)")  # all slices are read
        found = re.fullmatch(r"slice (\d+), row (\d+), column (\d+): (-?\d+) HU", said(page, "say"))
        assert found is not None, said(page, "say")
        where, value = [int(one) - 1 for one in found.groups()[:3]], int(found[4])
        at = where
        assert all(0 <= at - first < size for at, first, size in zip(where, MARK, (2, 4, 4), strict=True)), (key, where)
        assert value == pytest.approx(200, abs=12)
    page.key("a")
    for _ in range(6):
        page.key("ArrowLeft", SHIFT)
    page.wait("document.querySelector('[data-part=say]').textContent.includes('column 16:')")
    assert int(said(page, "say").split()[-2]) == pytest.approx(-100, abs=12)


def test_colours_are_those_of_the_window(page: Page) -> None:
    for key, places in {
        "1": {(0.2, 0.7): [38] * 3},  # -100 HU between -160 and 240
        "2": {(0.2, 0.7): [6] * 3, (0.2, 0.3): [57] * 3},  # the truth: -150 and -70
    }.items():
        page.key(key)
        page.wait(f"document.querySelector('[data-list=layer] input:checked').value === '{int(key) - 1}'")
        drawn(page, ("mean axial 7", "image-of-error axial 7")[int(key) - 1])
        for place, color in places.items():
            np.testing.assert_allclose(pixel(page, *place), color, atol=6)
    page.key("4")
    drawn(page, "error axial 7")
    red, blue, white = pixel(page, 0.2, 0.7), pixel(page, 0.2, 0.3), pixel(page, 0.9, 0.2)
    assert red[0] - red[2] > 80 and blue[2] - blue[0] > 30 and min(white) > 230, "50, -30 and 0 HU of 100"
    page.key("3")
    drawn(page, "spread axial 7")
    low = sum(pixel(page, 0.5, 0.5))
    page.key("End")
    drawn(page, "spread axial 12")
    assert sum(pixel(page, 0.5, 0.5)) > low + 100


def test_letters_turn_with_the_plane(page: Page) -> None:
    planes = {"a": ("axial 7", "RLAP"), "c": ("coronal 13", "RLHF"), "s": ("sagittal 17", "APHF")}
    for key, (plane, letters) in planes.items():
        page.key(key)
        drawn(page, f"mean {plane}")
        assert "".join(said(page, part) for part in ("left", "right", "top", "bottom")) == letters


def test_an_address_opens_a_view_and_nonsense_is_ignored(chrome: Page, page_file: Path) -> None:
    chrome.open(page_file, address="layer=spread&plane=coronal&slice=4&window=lung")
    drawn(chrome, "spread coronal 4")
    assert said(chrome, "high") == "250 HU"
    chrome.open(page_file, address="layer=gone&plane=up&slice=1e9&window=x")
    drawn(chrome, "mean axial 12")
    assert chrome.problems == []


def test_a_phone_shows_everything_in_its_width_and_a_finger_scrolls(
    chrome: Page, page_file: Path, tmp_path: Path
) -> None:
    chrome.open(page_file, size=(390, 844), touch=True)
    drawn(chrome, "mean axial 7")
    assert chrome.value("document.documentElement.scrollWidth") <= 390
    small = chrome.value(
        "[...document.querySelectorAll('.viewer button, .viewer .choice')].filter((b) => b.offsetHeight < 32).length"
    )
    assert small == 0, "fingers need room"
    left, top, width, height = canvas_box(chrome)
    chrome.drag_finger((left + width / 2, top + height * 0.6), (left + width / 2, top + height * 0.4))
    chrome.wait("document.getElementById('viewer').dataset.drawn !== 'mean axial 7'")
    assert chrome.value("Number(document.querySelector('[data-part=slider]').value)") > 7
    assert chrome.value(f"document.body.textContent.includes({FOOTER!r})")
    chrome.screenshot(tmp_path / "phone.png")
    with Image.open(tmp_path / "phone.png") as picture:
        assert picture.size == (390, 844) and np.asarray(picture.convert("L")).std() > 20
