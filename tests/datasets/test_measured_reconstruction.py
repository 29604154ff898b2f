"""Measured scans are read the right way round and reconstruct to what they show: HTC2022 (fan), a tooth (parallel).

A sinogram fixes its geometry up to a turn and a mirror of the whole set-up. Conjugate rays of one object, measured from
both sides, test all of the rest without any reconstruction; the turn and the mirror are tested by where the disc lies
in the shipped image. Bounds come from what the data themselves can tell (noise, pixels), never from our own results.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares
from skimage.filters import threshold_otsu
from skimage.transform import iradon

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.datasets.htc2022 import challenge_score, read_htc2022
from deft_ct.methods.classical import StoppingRule, total_variation
from deft_ct.operators.ct import FanGeometry, RayTransform, detector_shift, fbp

Array = NDArray[np.float64]

pytestmark = pytest.mark.data


def dihedral(image: Array) -> Iterator[Array]:
    """The image itself, then the 7 other orientations that an array can have."""
    for mirrored in (image, image[:, ::-1]):
        for turns in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, turns))


# --- HTC2022 ---------------------------------------------------------------------------------------------------------


def lines(geometry: FanGeometry) -> tuple[Array, Array]:
    """Direction and signed distance from the axis of every ray, as the projector sees them: (views, detectors) each."""
    rays = geometry.rays()
    along = np.broadcast_to(rays.direction, (*geometry.sinogram_shape, 2))
    origin = np.broadcast_to(rays.origin, along.shape)
    dx, dy = np.moveaxis(along / np.linalg.norm(along, axis=-1, keepdims=True), -1, 0)
    return np.arctan2(dy, dx), origin[..., 0] * dy - origin[..., 1] * dx


def conjugate_mismatch(one: FanGeometry, y_one: Array, two: FanGeometry, y_two: Array) -> float:
    """The line integrals of one scan against those that the other measured along the same lines, backwards."""
    angle, distance = lines(one)
    angles, distances = lines(two)
    elements = np.arange(two.detectors)
    rising = np.argsort(-distances[0])
    element = np.interp(distance, -distances[0][rising], elements[rising], left=np.nan, right=np.nan)
    step = float(np.median(np.diff(np.unwrap(angles[:, 0]))))
    turn = angle + np.pi - np.interp(element, elements, np.unwrap(angles[0]))
    view = np.mod(np.sign(step) * turn, 2 * np.pi) / abs(step)
    seen = np.isfinite(element) & (view <= len(y_two) - 1)
    assert seen.mean() > 0.5
    other = RegularGridInterpolator((np.arange(len(y_two)), elements), y_two)(np.stack([view[seen], element[seen]], -1))
    return float(np.linalg.norm(other - y_one[seen]) / np.linalg.norm(y_one[seen]))


def test_opposite_scans_of_one_object_agree_along_conjugate_rays(data_root):
    """75 to 165 degrees against 274 to 334: sense of rotation, direction and centre of the detector, angles, units."""
    folder = data_root / "raw_projections"
    one, two = (read_htc2022(folder / f"lpd_tb_subsample_{n}.mat") for n in (90, 60))
    y_one, y_two = (scan.sinogram[0, 0].double().numpy() for scan in (one, two))

    def mismatch(change: str = "") -> float:
        geometries = []
        for scan in (one, two):
            g = scan.geometry
            changes = {
                "": {},
                "rotation the other way": {"angles": -g.angle_array},
                "centre off by two elements": {"detector_offset_mm": 2 * g.detector_mm},
                "the other side off by two elements": {"detector_offset_mm": -2 * g.detector_mm},
                "degrees off": {"angles": g.angle_array * 1.02},
            }[change]
            geometries.append(g.replace(**changes))
        return conjugate_mismatch(geometries[0], y_one, geometries[1], y_two)

    # Views 1 degree apart, averaged, miss the view between them by this much: noise, and a step of interpolation. Two
    # independent measurements of the same lines, interpolated over half that step, cannot do much better.
    level = np.linalg.norm((y_one[2:] + y_one[:-2]) / 2 - y_one[1:-1]) / np.linalg.norm(y_one[1:-1])
    right = mismatch()
    assert right < 2 * level
    for change in ("rotation the other way", "centre off by two elements", "the other side off by two elements"):
        assert mismatch(change) > 4 * right, change
    assert mismatch("degrees off") > 2 * right
    reversed_detector = conjugate_mismatch(one.geometry, y_one[:, ::-1], two.geometry, y_two[:, ::-1])
    assert reversed_detector > 4 * right


def disc(image: Array) -> tuple[Array, float]:
    """Centre (column, row) and radius in pixels of a bright disc: a circle through its half-height edge."""
    level = threshold_otsu(image)
    rows, columns = np.nonzero(image > level)
    turn, radius = np.radians(np.arange(0, 360, 1.0))[:, None], np.arange(180, 255, 0.1)[None]
    row, column = rows.mean() + radius * np.sin(turn), columns.mean() + radius * np.cos(turn)
    above = map_coordinates(image, [row, column], order=1) > level
    last = above.shape[1] - 1 - above[:, ::-1].argmax(1)
    pick = np.arange(len(last))
    edge = np.stack([column[pick, last], row[pick, last]])
    fit = least_squares(
        lambda p: np.hypot(edge[0] - p[0], edge[1] - p[1]) - p[2], [columns.mean(), rows.mean(), 235], loss="soft_l1"
    )
    return fit.x[:2], float(fit.x[2])


def disc_centre_in_sinogram(geometry: FanGeometry, y: Array) -> Array:
    """(column, row) of a disc's centre: the point whose shadow is midway between the shadow's edges in every view."""
    middle = []
    for view in y:
        level = view.max() / 4
        a, b = np.flatnonzero(view > level)[[0, -1]]
        low = a - (view[a] - level) / (view[a] - view[a - 1])
        high = b + (view[b] - level) / (view[b] - view[b + 1])
        middle.append((low + high) / 2)
    angle, distance = lines(geometry)
    pixel, (height, width) = geometry.pixel_rc[0], geometry.image_shape

    def miss(centre: Array) -> Array:
        x, up = (centre[0] - (width - 1) / 2) * pixel, ((height - 1) / 2 - centre[1]) * pixel
        beside = x * np.sin(angle) - up * np.cos(angle) - distance
        return np.array([np.interp(m, np.arange(y.shape[1]), b) for m, b in zip(middle, beside, strict=True)]) / pixel

    found: Array = least_squares(miss, [width / 2, height / 2]).x
    return found


def test_the_shipped_full_angle_image_lies_where_the_sinogram_says(data_root):
    """The disc's centre is 3 pixels off the axis, in one of the 8 directions that orientations would give it."""
    folder = data_root / "raw_projections"
    scan = read_htc2022(folder / "lpd_solid_disc_subsample73.mat")
    image = scipy.io.loadmat(folder / "htc2022_solid_disc_full_recon_fbp.mat")["reconFullFbp"]
    measured = disc_centre_in_sinogram(scan.geometry, scan.sinogram[0, 0].double().numpy())
    errors = [float(np.linalg.norm(disc(candidate)[0] - measured)) for candidate in dihedral(image)]
    assert errors[0] < 0.5  # half a pixel: what another convention of where a pixel's centre lies would make
    assert min(errors[1:]) > 4 * 0.5  # so no orientation other than ours comes near


def test_the_shipped_full_angle_image_projects_to_the_measured_wedge(data_root):
    """FBP of a wedge cannot be compared with that of the full scan; projecting the full-scan image can."""
    folder = data_root / "raw_projections"
    scan = read_htc2022(folder / "lpd_solid_disc_subsample73.mat")
    image = scipy.io.loadmat(folder / "htc2022_solid_disc_full_recon_fbp.mat")["reconFullFbp"]
    y = scan.sinogram[0, 0].double().numpy()
    (column, row), radius = disc(image)
    rows, columns = np.indices(image.shape)
    # The corners lie outside of the scanner's field of view and hold what FBP leaves there; there is nothing but air.
    image = np.where(np.hypot(columns - column, rows - row) < radius + 2, image, 0.0)
    op = RayTransform(scan.geometry, "matrix")

    def unexplained(candidate: Array) -> tuple[float, float]:
        projected = op(torch.from_numpy(candidate)).numpy()
        factor = float((projected * y).sum() / (projected**2).sum())
        return factor, float(np.linalg.norm(factor * projected - y) / np.linalg.norm(y))

    factor, left = unexplained(image)
    # Their unit is one over a pixel. Both sides measure the same attenuation over the same path; what may differ is how
    # long the path is: the disc's radius is known to a pixel or two of its 235.
    assert factor == pytest.approx(1 / scan.geometry.pixel_rc[0], rel=2 / radius)
    # What is left is noise: its size shows in second differences over views, and that of the image adds to it.
    noise = np.median(np.abs(y[2:] - 2 * y[1:-1] + y[:-2])) / 0.6745 / np.sqrt(6)
    assert left < 2 * noise * np.sqrt(y.size) / np.linalg.norm(y)
    # Any other orientation adds (in squares) more than everything that is left.
    assert min(unexplained(candidate)[1] for candidate in list(dihedral(image))[1:]) > np.sqrt(2) * left


def test_tv_sees_the_disc_in_a_wedge_of_30_degrees(data_root):
    """Scored as in the challenge, against the shipped full-angle image; 4 x 4 pixels at once for speed."""
    folder = data_root / "raw_projections"
    pixel = read_htc2022(folder / "lpd_solid_disc_subsample73.mat").geometry.pixel_rc[0]
    scan = read_htc2022(folder / "lpd_solid_disc_subsample73.mat", image_shape=(128, 128), pixel_mm=4 * pixel)
    image = scipy.io.loadmat(folder / "htc2022_solid_disc_full_recon_fbp.mat")["reconFullFbp"]
    reference = image.reshape(128, 4, 128, 4).mean((1, 3)) / pixel
    body = reference > threshold_otsu(reference)
    y = scan.sinogram[0, 0]
    second = y[2:] - 2 * y[1:-1] + y[:-2]
    variance = (second.abs().median() / 0.6745).square() / 6
    x, _ = total_variation(y, RayTransform(scan.geometry), weights=1 / variance, stopping=StoppingRule(iterations=60))
    wedge = fbp(y, scan.geometry, "hann")
    score, fbp_score = (challenge_score(z.numpy() > threshold_otsu(z.numpy()), body) for z in (x, wedge))
    # A wedge of 30 degrees fixes the disc across the beam only. Of FBP's streaks little more than a sixth of the edge
    # is right; a prior of few edges closes it.
    assert score > (1 + fbp_score) / 2
    # The wedge sees the whole disc in every view, so the attenuation summed over it is fixed: mass over area.
    assert float(x.sum()) == pytest.approx(float(reference[body].sum()), rel=0.05)


# --- the tooth -------------------------------------------------------------------------------------------------------


def test_the_tooth_is_centred_where_its_views_say(data_root):
    path = data_root / "raw_projections" / "tomopy_tooth.h5"
    scan = read_data_exchange(path, center=296.0)
    centre = estimate_center(scan.sinogram[0, 0], scan.geometry.angle_array)
    assert centre == pytest.approx(296.0, abs=0.5)

    def negative_share(at: float) -> float:
        shifted = read_data_exchange(path, center=at, rows=slice(0, 1))
        image = fbp(shifted.sinogram, shifted.geometry.replace(image_shape=(320, 320), pixel_mm=2.0), "hann")
        return float(-(image.clamp_max(0)).sum() / image.abs().sum())  # a wrong centre leaves negative crescents

    # An estimate of its own: the least negative of all centres lies within a column of it, and on both sides it grows.
    at = np.arange(293.0, 300.0)
    shares = np.array([negative_share(one) for one in at])
    best = int(shares.argmin())
    assert abs(at[best] - centre) <= 1
    assert (np.diff(shares[: best + 1]) < 0).all()
    assert (np.diff(shares[best:]) > 0).all()


def test_the_air_beside_the_tooth_is_too_uneven_to_tell_a_shift(data_root):
    scan = read_data_exchange(data_root / "raw_projections" / "tomopy_tooth.h5", center=296.0, rows=slice(0, 1))
    assert detector_shift(scan.sinogram, scan.geometry) is None


def test_the_tooth_is_that_of_scikit_image(data_root):
    """An independent FBP with its own axes: the same orientation and the same attenuation, in 1/pixel."""
    path = data_root / "raw_projections" / "tomopy_tooth.h5"
    # scikit-image turns about column n // 2: 296 of the columns 0 to 592.
    scan = read_data_exchange(path, center=296.0, rows=slice(0, 1), columns=slice(0, 593))
    ours = fbp(scan.sinogram, scan.geometry, "hann")[0, 0].double().numpy()
    theta = np.degrees(scan.geometry.angle_array)
    theirs = iradon(scan.sinogram[0, 0].double().numpy().T, theta, filter_name="hann", output_size=593)
    tooth = theirs > threshold_otsu(theirs)
    tooth_box = np.ix_(tooth.any(1), tooth.any(0))
    assert theirs[tooth_box].size < 0.2 * theirs.size  # off the centre, so that orientations are told apart

    def error(candidate: Array) -> float:
        return float(np.linalg.norm((candidate - theirs)[tooth]) / np.linalg.norm(theirs[tooth]))

    errors = [error(candidate) for candidate in dihedral(ours)]
    assert errors[0] < 0.02  # the same sum over views; both interpolate linearly between the same elements
    assert min(errors[1:]) > 10 * errors[0]
