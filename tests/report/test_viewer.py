"""What a page holds of a volume: values that are close, in a bounded number of bytes."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deft_ct.report.slice_pictures import Fineness, ToneCurve, decoded, encoded, shrunk
from deft_ct.report.viewer import Layer, ViewWindow, VolumeView, axis_letters, viewer_html

Volume = NDArray[np.float32]
SOFT = ViewWindow(name="soft", level=40, width=400, limit=100)


def phantom(count: int = 3, size: int = 64) -> Volume:
    """HU: air, a body of 40 HU with a lung of -800 and a bone of 900, a little noise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    disk = np.where(np.hypot(x, y) < 0.4 * size, 40.0, -1000.0)
    disk[np.hypot(x - size / 6, y) < size / 8] = -800
    disk[np.hypot(x + size / 6, y) < size / 12] = 900
    noise = np.random.default_rng(0).normal(0, 5, (count, size, size))
    return (disk + noise * (disk > -900)).astype(np.float32)


def view_of(mean: Volume, **more: Any) -> VolumeView:
    error = np.random.default_rng(1).normal(0, 20, mean.shape).astype(np.float32)
    layers = (
        Layer(key="mean", title="mean", kind="image", unit="HU", volume=lambda: mean),
        Layer(key="error", title="error", kind="difference", unit="HU", volume=lambda: error, subtracted="reference"),
        Layer(key="spread", title="spread", kind="map", unit="HU", volume=lambda: np.abs(error)),
    )
    return VolumeView(**({"layers": layers, "spacing_zyx": (2.0, 1.0, 1.0), "windows": (SOFT,)} | more))


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.S)
    return dict(json.loads(text))


def read(layer: dict[str, Any], n: int) -> NDArray[np.float64]:
    """What a browser makes of a slice: the values of the grey levels of the picture."""
    with Image.open(io.BytesIO(base64.b64decode(layer["slices"][n]))) as picture:
        assert picture.mode == "L"
        values: NDArray[np.float64] = np.array(layer["values"])[np.asarray(picture)]
    return values


def test_every_layer_is_close_to_its_volume() -> None:
    mean = phantom()
    view = view_of(mean)
    data = data_of(viewer_html(view))
    assert data["shape"] == [3, 64, 64] and data["stacked"]
    for layer, found in zip(view.layers, data["layers"], strict=True):
        volume = layer.volume()
        assert found["shrink"] == 1 and len(found["slices"]) == 3
        for n in range(3):
            away = np.abs(read(found, n) - volume[n])
            assert np.percentile(away[volume[n] != -1000], 95) < 2 * found["within"] + 0.5
    assert [layer["within"] < limit for layer, limit in zip(data["layers"], (20, 10, 10), strict=True)] == [True] * 3
    tissue = np.abs(read(data["layers"][0], 1) - mean[1])[np.abs(mean[1] - 40) < 20]
    assert np.median(tissue) < 4


@pytest.mark.parametrize("share", [0.5, 0.25, 0.12])
def test_a_page_is_never_larger_than_allowed(share: float) -> None:
    view = view_of(phantom(4, 96))
    whole = sum(len(text) for layer in data_of(viewer_html(view))["layers"] for text in layer["slices"])
    data = data_of(viewer_html(view, max_bytes=int(share * whole)))
    assert sum(len(text) for layer in data["layers"] for text in layer["slices"]) <= share * whole
    mean, error, _ = data["layers"]
    if error["shrink"] > 1:
        assert error["subtracted"] is None, "an image of a coarse difference would look sharp and be wrong"
        assert mean["shrink"] <= error["shrink"]
    if share == 0.12:
        assert error["shrink"] > 1


def test_what_fits_nowhere_is_said() -> None:
    html = viewer_html(view_of(phantom()), max_bytes=100)
    assert "too large for the viewer" in html and "<script" not in html


def test_values_that_are_no_hu_and_constants_are_kept() -> None:
    rising = np.linspace(0, 0.03, 2 * 16 * 16, dtype=np.float32).reshape(2, 16, 16)
    for volume, atol in ((rising, 3e-4), (np.full_like(rising, 7.0), 1e-3), (np.zeros_like(rising), 1e-3)):
        layers = [Layer(key="mean", title="m", kind="image", unit="1/mm", volume=lambda v=volume: v)]  # type: ignore[misc]
        layers.append(Layer(key="spread", title="s", kind="map", unit="1/mm", volume=lambda: np.zeros_like(rising)))
        first, second = data_of(viewer_html(view_of(rising, layers=layers)))["layers"]
        np.testing.assert_allclose(read(first, 1), volume[1], atol=atol)
        np.testing.assert_allclose(read(second, 0), 0, atol=1e-2)


def test_text_of_the_data_cannot_leave_its_element() -> None:
    html = viewer_html(view_of(phantom(), names=["</script><b>", "2", "3"]))
    assert "</script><b>" not in html and data_of(html)["names"][0] == "</script><b>"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda view: replace(view, layers=()), "the first one an image"),
        (lambda view: replace(view, layers=view.layers[1:]), "the first one an image"),
        (
            lambda view: replace(view, layers=(view.layers[0], replace(view.layers[1], volume=lambda: phantom(2)))),
            "layer error has shape",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(change: Callable[[VolumeView], VolumeView], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viewer_html(change(view_of(phantom())))


def test_a_curve_goes_there_and_back() -> None:
    for curve in (
        ToneCurve.around_zero(-500.0, 500.0, 20.0),
        ToneCurve.around_zero(0.0, 500.0, 20.0),
        ToneCurve.through([(-1024, 0), (-200, 0.4), (300, 0.8), (2000, 1)]),
    ):
        np.testing.assert_array_equal(curve.codes(curve.values.astype(np.float32)), np.arange(256))
        assert list(curve.codes(np.array([-1e9, 1e9], np.float32))) == [0, 255]
    steps = np.diff(ToneCurve.around_zero(-500.0, 500.0, 20.0).values)
    assert steps[127] < 1 and steps[0] > 10, "fine around 0"
    with pytest.raises(ValueError, match="values that rise"):
        ToneCurve(np.zeros(256))


def test_pixels_are_averaged_in_blocks() -> None:
    image = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_allclose(shrunk(image, 2), [[3, 5, 6.5], [10.5, 12.5, 14]])
    assert shrunk(image, 1) is image
    curve = ToneCurve.through([(0, 0), (20, 1)])
    np.testing.assert_allclose(decoded(encoded(image, curve, Fineness(1, 95)), curve), image, atol=0.7)


def test_letters_are_those_of_the_patient() -> None:
    axial = np.diag([0.7, 0.7, 2.0, 1.0])
    assert axis_letters(axial) == ("L", "P", "H")
    prone = np.diag([-0.7, -0.7, 2.0, 1.0])
    assert axis_letters(prone) == ("R", "A", "H")
    tilted = axial.copy()
    tilted[:3, 2] = (0.0, 0.6, -2.0)
    assert axis_letters(tilted) == ("L", "P", "F")
