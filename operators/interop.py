"""Our operators in other libraries and theirs in ours: SciPy, deepinv, ODL. Each is imported when it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator
from torch import Tensor

from deft_ct.operators.base import Operator
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import Decomposable, SingularValueDecomposition

__all__ = ["FromDeepinv", "FromODL", "as_deepinv_physics", "as_linear_operator", "as_odl_operator"]


def as_linear_operator(op: LinearOperator, dtype: torch.dtype = torch.float32) -> ScipyLinearOperator:
    """The operator for SciPy's solvers, on flattened NumPy vectors and matrices of column vectors.

    Args:
        op: any linear operator.
        dtype: ``torch.float32`` or ``torch.float64``.

    Returns:
        A ``scipy.sparse.linalg.LinearOperator`` of shape (range size, domain size).

    Raises:
        ValueError: another dtype.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    kind = np.float64 if dtype == torch.float64 else np.float32

    def columns(apply: Any, shape: tuple[int, ...]) -> Any:
        def on_columns(matrix: NDArray[Any]) -> NDArray[Any]:
            flat = np.ascontiguousarray(matrix.reshape(math.prod(shape), -1).T, dtype=kind)
            with torch.no_grad():
                out: Tensor = apply(torch.from_numpy(flat).reshape(-1, *shape))
            result: NDArray[Any] = out.flatten(1).T.numpy()
            return result.reshape(-1) if matrix.ndim == 1 else result

        return on_columns

    forward, adjoint = columns(op, op.domain_shape), columns(op.adjoint, op.range_shape)
    return ScipyLinearOperator(
        shape=(math.prod(op.range_shape), math.prod(op.domain_shape)),
        dtype=np.dtype(kind),
        matvec=forward,
        rmatvec=adjoint,
        matmat=forward,
        rmatmat=adjoint,
    )


def as_deepinv_physics(op: Operator, noise_model: Any = None) -> Any:
    """The operator as deepinv physics on images ``(B, C, H, W)``.

    A ``DecomposablePhysics`` where the operator has a singular value decomposition (for deepinv's DDRM and its closed
    proximal steps), else a ``LinearPhysics``, and a plain ``Physics`` for a nonlinear operator.

    Args:
        op: an operator.
        noise_model: a deepinv noise model, or None.

    Raises:
        ImportError: deepinv is not installed, or does not import.
    """
    physics = _import("deepinv.physics", "deepinv")
    options: dict[str, Any] = {} if noise_model is None else {"noise_model": noise_model}
    if not isinstance(op, LinearOperator):
        return _nonlinear_physics(physics, op, options)
    linear: LinearOperator = op
    base, svd = physics.LinearPhysics, _decomposition(linear)
    if svd is not None:
        base = physics.DecomposablePhysics
        options |= {
            "U": svd.data_from_spectral, "U_adjoint": svd.data_to_spectral, "V": svd.from_spectral,
            "V_adjoint": svd.to_spectral, "mask": svd.singular_values.float()[None],
        }  # fmt: skip

    class Physics(base):  # type: ignore[misc, valid-type]
        """A deft-ct operator as deepinv physics."""

        def __init__(self) -> None:
            super().__init__(**options)

        def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802  (deepinv's names)
            """Apply the operator."""
            y: Tensor = linear(x)
            return y

        def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """Apply the adjoint."""
            return linear.adjoint(y)

        def A_dagger(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """The operator's pseudo-inverse: filtered back-projection for CT."""
            return linear.pseudo_inverse(y)

    return Physics()


def _nonlinear_physics(physics: Any, op: Operator, options: dict[str, Any]) -> Any:
    class Physics(physics.Physics):  # type: ignore[misc]
        """A nonlinear deft-ct operator as deepinv physics."""

        def __init__(self) -> None:
            super().__init__(**options)

        def A(self, x: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """Apply the operator."""
            y: Tensor = op(x)
            return y

        def A_vjp(self, x: Tensor, v: Tensor) -> Tensor:  # noqa: N802
            """The vector-Jacobian product of the operator, with its own rule for rounding."""
            return op.vjp(x, v)

        def A_dagger(self, y: Tensor, **_: Any) -> Tensor:  # noqa: N802
            """The operator's pseudo-inverse, where it has one."""
            return op.pseudo_inverse(y)

    return Physics()


def _decomposition(op: LinearOperator) -> SingularValueDecomposition | None:
    """That of an operator with one for all images, where it is cheap."""
    if op.images is not None or not isinstance(op, Decomposable):
        return None
    try:
        return op.svd()
    except ValueError:  # with another boundary it has one
        return None


class FromDeepinv(LinearOperator):
    """A deepinv ``LinearPhysics`` as an operator.

    Args:
        physics: the physics; its ``A`` and ``A_adjoint`` take ``(B, C, H, W)``.
        domain_shape: shape of one image, without the batch axis.
        range_shape: shape of one measurement, without the batch axis.
        matched: whether its adjoint is exact; not so for every deepinv physics.
    """

    def __init__(
        self, physics: Any, domain_shape: tuple[int, ...], range_shape: tuple[int, ...], *, matched: bool = True
    ) -> None:
        super().__init__(domain_shape, range_shape)
        self.physics = physics
        self.matched = matched

    def _forward_kernel(self, x: Tensor) -> Tensor:
        y: Tensor = self.physics.A(x)
        return y

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        x: Tensor = self.physics.A_adjoint(y)
        return x


class FromODL(LinearOperator):
    """A linear ODL operator as ours.

    ODL's adjoint belongs to the weighted inner products of its spaces (cell volumes). It is converted to the plain
    transpose: with ``<x, z> = w_x sum(x z)`` and ``<y, v> = w_y sum(y v)``, that is ``w_x / w_y`` times theirs.

    Args:
        operator: the operator, between NumPy-backed spaces with constant weights.

    Raises:
        ValueError: a space with weights that are not constant.
    """

    def __init__(self, operator: Any) -> None:
        super().__init__(tuple(operator.domain.shape), tuple(operator.range.shape))
        self.odl = operator
        self._ratio = _weight(operator.domain) / _weight(operator.range)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return _each(self.odl, x, self.range_shape)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self._ratio * _each(self.odl.adjoint, y, self.domain_shape)


def as_odl_operator(op: LinearOperator, domain: Any = None, range: Any = None) -> Any:
    """The operator as a linear ODL operator.

    Args:
        op: a linear operator.
        domain: ODL space of shape ``op.domain_shape``; plain float32 tensors if left out.
        range: ODL space of shape ``op.range_shape``; plain float32 tensors if left out.

    Returns:
        An ``odl.Operator`` whose adjoint belongs to the inner products of the two spaces.

    Raises:
        ImportError: ODL is not installed.
        ValueError: a space of another shape.
    """
    odl = import_odl()
    source = odl.rn(op.domain_shape, dtype="float32") if domain is None else domain
    target = odl.rn(op.range_shape, dtype="float32") if range is None else range
    for name, space, shape in (("domain", source, op.domain_shape), ("range", target, op.range_shape)):
        if tuple(space.shape) != tuple(shape):
            raise ValueError(f"{name} must be a space of shape {shape}, got {tuple(space.shape)}")
    ratio = _weight(target) / _weight(source)

    def run(apply: Any, element: Any, space: Any, factor: float) -> Any:
        with torch.no_grad():
            out = apply(torch.from_numpy(element.asarray().copy()))
        return space.element((factor * out).numpy())

    class Forward(odl.Operator):  # type: ignore[misc, name-defined]
        """Our operator for ODL."""

        def __init__(self) -> None:
            super().__init__(source, target, linear=True)

        def _call(self, x: Any) -> Any:
            return run(op, x, target, 1.0)

        @property
        def adjoint(self) -> Any:
            """The adjoint for the weighted inner products."""
            return Backward()

    class Backward(odl.Operator):  # type: ignore[misc, name-defined]
        """Its adjoint."""

        def __init__(self) -> None:
            super().__init__(target, source, linear=True)

        def _call(self, y: Any) -> Any:
            return run(op.adjoint, y, source, ratio)

        @property
        def adjoint(self) -> Any:
            """The operator itself."""
            return Forward()

    return Forward()


def import_odl() -> Any:
    """The ``odl`` module, with NumPy's print options kept as they were.

    Raises:
        ImportError: ODL is not installed.
    """
    options = np.get_printoptions()
    try:
        return _import("odl", "odl")
    finally:
        np.set_printoptions(**options)


def _import(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name.split('.')[0]}: pip install deft-ct[{extra}]") from error


def _weight(space: Any) -> float:
    weighting = getattr(space, "weighting", None)
    if weighting is None:
        return 1.0
    constant = getattr(weighting, "const", None)
    if constant is None:
        raise ValueError(f"ODL spaces must have constant weights, got {weighting!r}")
    return float(constant)


def _each(operator: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    out = torch.empty(len(x), *shape, dtype=x.dtype)
    for i, item in enumerate(x.detach().cpu().numpy()):
        element = operator.domain.element(item.astype(operator.domain.dtype_identifier, copy=False))
        out[i] = torch.as_tensor(operator(element).asarray())
    return out.to(x.device)
