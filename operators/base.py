"""The base class of every forward model; linear ones derive from :mod:`deft_ct.operators.linear`."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from deft_ct.operators.arguments import checked, device_of
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.findings import Diagnosis, RegularisationHint
from deft_ct.operators.image_values import ImageValues
from deft_ct.operators.row_order import RowOrder
from deft_ct.operators.solvers import largest_singular_value, normal_at

RowPick = Callable[[Tensor], Tensor]

NOISE_FREE_STD = 0.01
"""Standard deviation that noise-free data count as in a penalised fit, for images in [-1, 1]."""


class Operator(nn.Module, abc.ABC):
    """A forward model ``y = A(x)``, possibly nonlinear.

    An operator may have parameters of its own for each image of a batch, such as a mask for each. It then takes
    batches of exactly :attr:`images`, and ``A[i:j]`` is the operator of some of them.

    Args:
        domain_shape: trailing shape of ``x``, without batch axes.
        range_shape: trailing shape of ``y``, without batch axes.

    Attributes:
        has_pseudo_inverse: whether :meth:`pseudo_inverse` gives a result; true for every linear operator.
        has_equivalents: whether other images, such as a turned one, have the very data of an image. A mean over samples
            is then none of them, and the answer is the sample that explains the data best.
    """

    has_pseudo_inverse: bool = False
    has_equivalents: bool = False

    def __init__(self, domain_shape: tuple[int, ...], range_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.domain_shape = tuple(int(n) for n in domain_shape)
        self.range_shape = tuple(int(n) for n in range_shape)
        self._norm: float | None = None
        self._norms: list[float] | None = None

    @abc.abstractmethod
    def _forward_kernel(self, x: Tensor) -> Tensor:
        """Map ``(N, *domain_shape)`` to ``(N, *range_shape)``."""

    @property
    def images(self) -> int | None:
        """How many images have parameters of their own; None when all images share the parameters."""
        return None

    def select_images(self, pick: RowPick) -> Operator:
        """The operator of other images; operators with parameters of each image override it, and :attr:`images`.

        Args:
            pick: maps a parameter ``(images, *)`` to that of the other images.
        """
        return self

    @classmethod
    def joined(cls, operators: Sequence[Self]) -> Self | None:
        """One operator with the parameters of several, the k-th for image k.

        Args:
            operators: of this class, for images of one shape, each without a batch axis of its own.

        Returns:
            None where operators of this kind have no parameters of each image.
        """
        return None

    def __getitem__(self, part: slice) -> Operator:
        """The operator of some images of a batch: itself when all images share the parameters.

        Raises:
            TypeError: ``part`` is not a slice; write ``A[i : i + 1]`` for one image.
        """
        if not isinstance(part, slice):
            raise TypeError(f"{type(self).__name__}: images are chosen by a slice, got {type(part).__name__}")
        return self if self.images is None else self.select_images(lambda values: values[part])

    def repeat(self, count: int) -> Operator:
        """The operator with the parameters of each image ``count`` times in a row, for several samples of each."""
        return self if self.images is None else self.select_images(lambda values: values.repeat_interleave(count, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator.

        Args:
            x: ``(..., *domain_shape)`` with any leading batch axes, which may be empty; half precision is computed
                and returned in float32.

        Returns:
            ``(..., *range_shape)``.

        Raises:
            TypeError: ``x`` is not a floating-point tensor.
            ValueError: the trailing shape of ``x`` is not :attr:`domain_shape`.
        """
        x = checked(self, x, self.domain_shape, "input")
        batch = x.shape[: x.ndim - len(self.domain_shape)]
        if 0 in batch:  # FFT libraries refuse empty batches
            return x.new_zeros((*batch, *self.range_shape))
        with torch.autocast(x.device.type, enabled=False):
            return self._forward_kernel(x.reshape(-1, *self.domain_shape)).reshape(*batch, *self.range_shape)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Vector-Jacobian product ``J(x)^T v`` at ``x``; for a linear operator this is the adjoint.

        Args:
            x: ``(..., *domain_shape)``, the point of linearisation.
            v: ``(..., *range_shape)``.

        Returns:
            ``(..., *domain_shape)``; the result carries no graph with respect to ``x``.
        """
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            (out,) = torch.autograd.grad(self(point), point, v.detach())
        return out

    def norm(self, *, iterations: int = 50, tolerance: float = 1e-5) -> float:
        """Largest singular value by the power method on ``A^T A``, computed once and kept.

        With parameters for each image it is the largest of all images, see :meth:`norms`. For a nonlinear operator
        ``A`` is its Jacobian at one fixed image of a quarter of the contrast of :attr:`image_values`.

        Args:
            iterations: most iterations.
            tolerance: stop when the estimate changes by less than this fraction.
        """
        if self._norm is None and (self.images or 1) > 1:
            self._norm = max(self.norms(iterations=iterations, tolerance=tolerance))
        if self._norm is None:
            self._norm = largest_singular_value(
                self._normal_near_zero, self.domain_shape, device_of(self), iterations=iterations, tolerance=tolerance
            )
        return self._norm

    def norms(self, *, iterations: int = 50, tolerance: float = 1e-5) -> list[float]:
        """The norm of each image's operator, or the only one when all images share the parameters.

        Args:
            iterations: see :meth:`norm`.
            tolerance: see :meth:`norm`.
        """
        if self._norms is None:
            # One at a time: the norm of an image must not depend on the batch that it is in.
            alone = [self] if self.images in (None, 1) else [self[i : i + 1] for i in range(self.images or 0)]
            self._norms = [one.norm(iterations=iterations, tolerance=tolerance) for one in alone]
        return self._norms

    def _normal_near_zero(self, x: Tensor) -> Tensor:
        """``J^T J x`` with the Jacobian at a fixed image of small contrast, which saturates nothing."""
        noise = torch.rand(self.domain_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
        return normal_at(self, (self.image_values.contrast * (0.5 * noise - 0.25)).to(x), x)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """A cheap approximate inverse, where the operator has one.

        Raises:
            TypeError: this operator declares none.
        """
        name = type(self).__name__
        raise TypeError(f"{name} has no pseudo-inverse; use a method that needs only the operator itself")

    def refined(self, factor: int) -> Operator:
        """This operator on a grid ``factor`` times finer, for simulating data with another model than that of the fit.

        Raises:
            ValueError: the operator has no finer twin.
        """
        raise ValueError(f"{type(self).__name__} cannot be simulated on a finer grid; use refine=1")

    def describe(self) -> dict[str, Any]:
        """JSON-ready description, for run records."""
        return {"operator": type(self).__name__}

    def diagnose(self, y: Tensor, weights: Tensor | None = None) -> Diagnosis:
        """Look for faults in noisy data, and repair them where the repair is standard; nothing by default.

        Args:
            y: data ``(B, C, *range_shape)``.
            weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.
        """
        return Diagnosis()

    def row_order(self) -> RowOrder | None:
        """Order of the rows of the data in which neighbours belong together; None when they are in it, or unknown."""
        return None

    def features(self, y: Tensor, weights: Tensor | None) -> Tensor:
        """A few numbers that tell a network which measurement it has.

        Args:
            y: data ``(B, C, *range_shape)``.
            weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.

        Returns:
            ``(B, F)`` float32, each of order one.

        Raises:
            ValueError: the operator has no such description.
        """
        raise ValueError(f"{type(self).__name__} has no features that a network could be conditioned on")

    @property
    def feature_images(self) -> tuple[FeatureImage, ...]:
        """The images that a network should be given, beside the gradient of the likelihood.

        :meth:`data_images` and :meth:`estimate_images` compute them, each in this order. By default it is ``data``, the
        pseudo-inverse of the data where there is one.
        """
        return (FeatureImage(name="data"),) if self.has_pseudo_inverse else ()

    def data_images(self, y: Tensor) -> Tensor:
        """The declared images of the data, such as a mask or the up-sampled data; computed once for a measurement.

        Args:
            y: data ``(B, *range_shape)``, or ``(B, C, *range_shape)`` for images of C channels of their own.

        Returns:
            ``(B, F, ...)`` with the axes of the images for the F declared images that belong to the data.
        """
        if self.has_pseudo_inverse:
            return self.pseudo_inverse(y).unsqueeze(1)
        return y.new_zeros((len(y), 0, *self.domain_shape))

    def estimate_images(self, x: Tensor, y: Tensor) -> Tensor:
        """The declared images of an estimate, such as its projection onto the data; at every evaluation of a network.

        Args:
            x: estimate ``(B, *domain_shape)``, or ``(B, C, *domain_shape)``.
            y: data, as in :meth:`data_images`.

        Returns:
            ``(B, G, ...)`` with the axes of ``x`` for the G declared images that belong to an estimate.
        """
        return x.new_zeros((len(x), 0, *x.shape[1:]))

    @property
    def grid_spacing(self) -> tuple[float, ...] | None:
        """Distance of neighbouring samples along each axis of the domain, all in one unit.

        None where it is unknown, or where an axis is not one of space (channels, points). A domain of three axes is a
        volume if it has a spacing.
        """
        return None

    @property
    def image_values(self) -> ImageValues:
        """What the values of the images are like; those of images in [-1, 1] unless the operator says otherwise."""
        return ImageValues()

    @property
    def on_volumes(self) -> bool:
        """Whether the domain is a volume ``(slices, rows, columns)`` of known :attr:`grid_spacing`."""
        return self.grid_spacing is not None and len(self.domain_shape) == 3

    def regularisation_hint(self, y: Tensor, weights: Tensor | None) -> RegularisationHint | None:
        """How to set up a quick total-variation reconstruction of data; None where nothing is known about it.

        Args:
            y: data ``(B, C, *range_shape)``.
            weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.
        """
        return None

    def __matmul__(self, other: Any) -> Any:
        """``A @ x`` applies the operator; ``A @ B`` is the operator that applies ``B`` first.

        Raises:
            TypeError: ``other`` is neither a tensor nor an operator.
            ValueError: the shapes do not fit.
        """
        return self(other) if isinstance(other, Tensor) else self._algebra().compose(self, other)

    def unseen(self) -> Tensor | None:
        """Where an image stays at zero because no entry of the data depends on it.

        For operators whose images are zero where nothing is measured, such as attenuation outside of the field of view.
        A mask of inpainting is not of this kind: there a method has to fill in.

        Returns:
            A bool mask of the shape of the domain; None where there is no such pixel.
        """
        return None

    def nominal_weights(self, y: Tensor) -> Tensor:
        """Weights of noise-free data ``y`` in a penalised fit.

        Those of a little noise, :data:`NOISE_FREE_STD`, where the data are in the unit of the image: with weights of
        one, any penalty that suits noisy data would flatten the image. On a grid of known spacing the data have a unit
        of their own, and the weights are one unless the physics suggests others.
        """
        return torch.full_like(y, 1.0 if self.grid_spacing is not None else NOISE_FREE_STD**-2)

    @staticmethod
    def _algebra() -> Any:
        """The module of composed operators, which is built on this one."""
        return importlib.import_module("deft_ct.operators.algebra")
