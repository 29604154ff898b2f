"""AlignmentResult of a misaligned scan from its own data: centre of rotation, detector offset, angles of the views.

Joint Gauss-Newton on image and geometry. With ``A(p)`` the ray transform of the geometry ``p``, each step minimises

    || A(p) x + J dp - y ||^2 + w || grad x ||^2 + v || p + dp - p0 ||^2

over the image ``x`` and the correction ``dp`` together, ``J`` the derivative of ``A(p) x`` by the geometry at the last
image; ``v``, for angles only, is the mean squared residual over their expected squared error. It is variable projection
without the elimination (Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413): in turns, the image would absorb most of
the error in every round. Coarse to fine, since the residual has local minima a few details apart; and the image has
fewer unknowns than there are data, because with few views a fine one explains any geometry.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from deft_ct.operators.ct.differentiable import project
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.ray_transform import RayTransform
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.redundancy import angular_range
from deft_ct.operators.solvers import conjugate_gradient

_LOGGER = logging.getLogger(__name__)

PARAMETERS = ("angles", "axis_offset_mm", "detector_offset_mm")
_UNKNOWNS_A_DATUM = 0.5
_INNER = 60
_BLUR = 1.0
_LEAST_ARC = 120  # degrees; without any noise, 120 miss 2 % of a shift of the centre, 90 a quarter


@dataclass(frozen=True, eq=False)
class AlignmentResult:
    """What :func:`align_scan` found.

    Attributes:
        geometry: the scan with the corrected values.
        residual: relative residual ``|A x - y| / |y|`` of the averaged data on the last level before each of its steps,
            so the first is that of the geometry that the level started from.
        converged: whether the last step moved rays by less than a hundredth of an element of the last level, which is
            so many detector elements wide. It says nothing about how well the data determine the geometry.
    """

    geometry: PlanarGeometry
    residual: tuple[float, ...]
    converged: bool


def align_scan(
    sinogram: Tensor,
    geometry: PlanarGeometry,
    parameters: Sequence[str] = ("axis_offset_mm",),
    *,
    levels: Sequence[int] = (8, 4, 2),
    iterations: int = 12,
    smoothness: float = 1e-4,
    angle_error: float = math.radians(1.0),
) -> AlignmentResult:
    """Correct parameters of a scan so that its data become consistent.

    All slices have the same geometry. A rotation of the whole object cannot be seen in the data, so the mean of the
    angles is kept. The two offsets cannot be distinguished either. To first order, a shift of a fan's detector equals
    a shift of its axis with a rotated object. An arc below half a turn hardly distinguishes a shift of the centre from
    a shift of the object.

    Args:
        sinogram: ``(..., views, detectors)`` line integrals, float32 or float64. No view may be truncated.
        geometry: the nominal scan, from which the search starts; its image must hold the whole object.
        parameters: which of ``"angles"`` (each view), ``"axis_offset_mm"`` and ``"detector_offset_mm"``.
        levels: how many detector elements are averaged, from coarse to fine; errors up to about this many elements are
            found on a level.
        iterations: most Gauss-Newton steps on a level.
        smoothness: weight ``w`` of the squared gradient, relative to the squared norm of the ray transform.
        angle_error: standard deviation that the errors of the angles are expected to have, radians. Slow errors along
            the scan are nearly a deformation of the object; this prior holds them.

    Returns:
        The corrected geometry with a history.

    Raises:
        TypeError: not a sinogram, not a planar geometry.
        ValueError: an unknown parameter, the two offsets together, a single view, a shape that does not fit.

    Warns:
        UserWarning: views that cover so small an arc that the centre is not determined.
    """
    names = _checked(sinogram, geometry, parameters, levels, iterations, smoothness, angle_error)
    covered = round(math.degrees(angular_range(geometry)))
    if covered < _LEAST_ARC:
        warnings.warn(
            f"the views cover {covered} degrees; below {_LEAST_ARC} a shift of the centre is hardly different from "
            "one of the object: align_scan on a scan of half a turn with the same alignment",
            UserWarning,
            stacklevel=2,
        )
    nominal = geometry.angle_array
    data = sinogram.detach().reshape(-1, *geometry.sinogram_shape).double()
    residual: list[float] = []
    converged = False
    for level in levels:
        binned, coarse = _coarse(data, geometry, level)
        image = _start(binned, coarse, smoothness)
        residual = []
        for step in range(iterations):
            image, change, remaining = _gauss_newton(
                binned, coarse, image, names, smoothness, (coarse.angle_array - nominal, angle_error)
            )
            residual.append(remaining)
            largest = max(_elements(coarse, n, v) for n, v in change.items())
            if largest > 1:  # beyond about one coarse element the step is not to be trusted
                change = {n: v / largest for n, v in change.items()}
            coarse = coarse.replace(**{n: _moved(coarse, n, v) for n, v in change.items()})
            geometry = geometry.replace(**{n: _moved(geometry, n, v) for n, v in change.items()})
            _LOGGER.info(
                "calibration, level %d, step %d: residual %.3e, moved by %.2g elements", level, step, remaining, largest
            )
            converged = largest < 0.01
            if converged:
                break
    return AlignmentResult(geometry, tuple(residual), converged)


def _checked(
    sinogram: Tensor,
    geometry: PlanarGeometry,
    parameters: Sequence[str],
    levels: Sequence[int],
    iterations: int,
    smoothness: float,
    angle_error: float,
) -> tuple[str, ...]:
    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        raise TypeError(f"geometry must be a ParallelGeometry or FanGeometry, got {type(geometry).__name__}")
    if not isinstance(sinogram, Tensor) or sinogram.dtype not in (torch.float32, torch.float64):
        got = sinogram.dtype if isinstance(sinogram, Tensor) else type(sinogram).__name__
        raise TypeError(f"sinogram must be a float32 or float64 torch tensor, got {got}")
    if tuple(sinogram.shape[-2:]) != geometry.sinogram_shape:
        raise ValueError(
            f"sinogram must have trailing shape {geometry.sinogram_shape}, got shape {tuple(sinogram.shape)}"
        )
    if not bool(sinogram.isfinite().all()) or not bool(sinogram.any()):
        raise ValueError("sinogram must hold finite values that are not all zero")
    names = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    unknown = sorted(set(names) - set(PARAMETERS))
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(f"parameters must be some of {PARAMETERS}, each once, got {names}")
    if {"axis_offset_mm", "detector_offset_mm"} <= set(names):
        raise ValueError("the data show only the difference of axis_offset_mm and detector_offset_mm: name one")
    if geometry.sinogram_shape[0] < 2:
        raise ValueError("a single view fits any geometry: align_scan needs views that cover about half a turn or more")
    if not levels or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in levels):
        raise ValueError(f"levels must be integers >= 1, got {tuple(levels)}")
    if max(levels) > geometry.detectors // 4:
        raise ValueError(f"levels must not exceed a quarter of the {geometry.detectors} detectors, got {tuple(levels)}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
    for name, value in (("smoothness", smoothness), ("angle_error", angle_error)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, got {value}")
    return names


def _coarse(data: Tensor, geometry: PlanarGeometry, level: int) -> tuple[Tensor, PlanarGeometry]:
    """Data blurred and averaged over ``level`` detector elements, and a grid with few enough unknowns for them.

    The blur is as wide as a pixel of that grid, which can then hold the object: the error of discretisation would
    otherwise pass for an error of the angles.
    """
    kept = geometry.detectors // level
    dropped = geometry.detectors - kept * level
    left = dropped // 2
    (height, width), pitch = geometry.image_shape, geometry.pixel_rc
    finest = math.sqrt(height * width / (_UNKNOWNS_A_DATUM * kept * geometry.sinogram_shape[0]))
    element = geometry.detector_mm * _demagnification(geometry)  # seen from the rotation axis
    factor = max(level * element / min(pitch), finest, 1.0)
    shape = (max(1, math.ceil(height / factor)), max(1, math.ceil(width / factor)))
    smooth = _blurred(data, _BLUR * factor * max(pitch) / element)
    binned = smooth[..., left : left + kept * level].unflatten(-1, (kept, level)).mean(-1)
    return binned, geometry.replace(
        image_shape=shape,
        pixel_mm=(pitch[0] * height / shape[0], pitch[1] * width / shape[1]),
        detectors=kept,
        detector_mm=geometry.detector_mm * level,
        detector_offset_mm=geometry.detector_offset_mm + (left - dropped / 2) * geometry.detector_mm,
    )


def _blurred(data: Tensor, sigma: float) -> Tensor:
    """Gaussian blur along the detector, its ends repeated."""
    reach = math.ceil(4 * sigma)
    at = torch.arange(-reach, reach + 1, dtype=data.dtype, device=data.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    rows = torch.nn.functional.pad(data.reshape(-1, 1, data.shape[-1]), (reach, reach), mode="replicate")
    return torch.nn.functional.conv1d(rows, (kernel / kernel.sum())[None, None]).reshape(data.shape)


def _demagnification(geometry: PlanarGeometry) -> float:
    if isinstance(geometry, FanGeometry):
        return geometry.source_to_center_mm / geometry.source_to_detector_mm
    return 1.0


def _moved(geometry: PlanarGeometry, name: str, change: Tensor) -> float | Array:
    if name == "angles":
        angles: Array = geometry.angle_array + change.cpu().numpy()
        return angles
    return float(getattr(geometry, name)) + float(change)


def _elements(geometry: PlanarGeometry, name: str, change: Tensor) -> float:
    """By how many detector elements a change moves a ray, at most (angles: at half the width of the image)."""
    size = float(change.abs().max())
    if name == "angles":
        size *= 0.5 * max(n * d for n, d in zip(geometry.image_shape, geometry.pixel_rc, strict=True))
    scale = 1.0 if name == "detector_offset_mm" else _demagnification(geometry)
    return size / (geometry.detector_mm * scale)


class _Penalised:
    """``A^T A`` and the gradient penalty of one geometry, with the scale of ``A``."""

    def __init__(self, geometry: PlanarGeometry, smoothness: float, like: Tensor) -> None:
        self.op = RayTransform(geometry, "matrix")
        one = like.new_ones(geometry.image_shape)
        # The matrix is not negative, so a step of the power method from ones is close to its squared norm.
        self.square = float(self.op.normal(one).norm() / one.norm())
        self.weight = smoothness * self.square

    def penalty(self, x: Tensor) -> Tensor:
        """``w grad^T grad x`` with zero slope across the border."""
        out = torch.zeros_like(x)
        for axis in (-2, -1):
            step = x.diff(dim=axis)
            out.narrow(axis, 1, step.shape[axis]).add_(step)
            out.narrow(axis, 0, step.shape[axis]).sub_(step)
        return self.weight * out


def _start(data: Tensor, geometry: PlanarGeometry, smoothness: float) -> Tensor:
    model = _Penalised(geometry, smoothness, data)
    image, _ = conjugate_gradient(
        lambda x: model.op.normal(x) + model.penalty(x), model.op.adjoint(data), batch_ndim=0, iterations=_INNER
    )
    return image


def _gauss_newton(
    data: Tensor,
    geometry: PlanarGeometry,
    image: Tensor,
    names: tuple[str, ...],
    smoothness: float,
    prior: tuple[Array, float],
) -> tuple[Tensor, dict[str, Tensor], float]:
    """A joint step: the new image, the change of each parameter and the relative residual before it.

    ``prior`` is how far the angles are from the nominal ones, and how far they may be.
    """
    model = _Penalised(geometry, smoothness, data)
    slopes = {name: _derivative(image, geometry, name) for name in names}
    sizes = {
        name: slope.square().sum((0, 2)) if name == "angles" else slope.square().sum() for name, slope in slopes.items()
    }
    # In these units the columns of J have the norm of A, so that conjugate gradients treat both alike.
    units = {name: math.sqrt(model.square) / size.clamp_min(1e-300).sqrt() for name, size in sizes.items()}

    def split(z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        parts = z.split([image.numel(), *(max(1, sizes[n].numel()) for n in names)])
        changes = {}
        for name, part in zip(names, parts[1:], strict=True):
            change = part * units[name]
            changes[name] = change - change.mean() if name == "angles" else change.squeeze(0)
        return parts[0].reshape(image.shape), changes

    def pulled(value: Tensor, name: str) -> Tensor:  # the transpose of split, for one parameter
        return (value - value.mean() if name == "angles" else value) * units[name]

    def forward(x: Tensor, changes: dict[str, Tensor]) -> Tensor:
        out = model.op(x)
        for name, change in changes.items():
            out = out + slopes[name] * (change[:, None] if name == "angles" else change)
        return out

    def adjoint(y: Tensor) -> list[Tensor]:
        out = [model.op.adjoint(y).flatten()]
        for name in names:
            product = slopes[name] * y
            out.append(pulled(product.sum((0, 2)) if name == "angles" else product.sum().reshape(1), name))
        return out

    def normal(z: Tensor) -> Tensor:
        x, changes = split(z)
        parts = adjoint(forward(x, changes))
        parts[0] = parts[0] + model.penalty(x).flatten()
        return torch.cat([part + hold(changes, i) for i, part in enumerate(parts)])

    remaining = data - model.op(image)
    weight = remaining.square().mean() / prior[1] ** 2

    def hold(deviation: dict[str, Tensor], part: int) -> Tensor | float:
        if part == 0 or names[part - 1] != "angles":
            return 0.0
        return pulled(weight * deviation["angles"], "angles")

    rhs = adjoint(remaining)
    rhs[0] = rhs[0] - model.penalty(image).flatten()
    deviation = {"angles": torch.from_numpy(prior[0]).to(image)}
    rhs = [part - hold(deviation, i) for i, part in enumerate(rhs)]
    z, _ = conjugate_gradient(normal, torch.cat(rhs), batch_ndim=0, iterations=_INNER)
    x, changes = split(z)
    return image + x, changes, float(remaining.norm() / data.norm())


def _derivative(image: Tensor, geometry: PlanarGeometry, name: str) -> Tensor:
    """``(N, views, detectors)`` derivative of each ray's line integral by the parameter of its view."""
    # Inference mode, where the caller is in it, switches forward differentiation off.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)  # PyTorch's own
        value = torch.tensor(getattr(geometry, name), dtype=torch.float64, device=image.device)
        dual = forward_ad.make_dual(value, torch.ones_like(value))
        tangent = forward_ad.unpack_dual(project(image, geometry, **{name: dual})).tangent
    assert tangent is not None
    return tangent
