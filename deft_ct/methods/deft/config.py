"""What an h-transform is made of: its parts by the names that are stored with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from deft_ct.methods.deft.guidance import Guidance, guidance_for
from deft_ct.methods.deft.refinement import RefinementConfig
from deft_ct.methods.deft.scan_embedding import check_scan_fields
from deft_ct.methods.initial import InitialReconstruction, initial_for
from deft_ct.networks import NetworkConfig, UNetConfig, network_config
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.runtime.fields import check_fields, fitted, from_values

NO_INITIAL = "none"
"""Name of the form without an initial reconstruction."""
INITIAL_SPREAD, ESTIMATE_SPREAD = 0.04, 0.3
"""``HTransformConfig.spread`` where it is not given: around an initial reconstruction (40 HU), and without one."""
_OUTPUT = "output"
"""Key in a stored configuration without an initial reconstruction; earlier ones were in units of the noise."""


@dataclass(frozen=True, kw_only=True)
class HTransformConfig:
    """What the h-transform network sees and how its output is used; stored with the weights.

    Args:
        guidance: name of the measurement-consistency feature, see :data:`~deft_ct.methods.deft.guidance.GUIDANCES`.
        reference: name of the initial reconstruction, see :data:`~deft_ct.methods.initial.INITIALS`, or "none".
        spread: standard deviation ``s`` of the image around the initial reconstruction, in the prior's range; without
            one, the typical error of the prior's estimate that the data can mend. 0 for the usual value.
        reach: noise relative to the signal, where the initial reconstruction and the prior's estimate count the same; 0
            for ``spread``, which follows the features of a scan.
        guidance_scale: the guidance is divided by this before it enters the network. Without an initial reconstruction,
            or with a reach, a guidance that is a step is divided by ``c(t)`` instead.
        guidance_spread: standard deviation of the images in the prior's range, for the guidances "cg" and "split".
        guidance_steps: conjugate-gradient iterations of these guidances.
        use_tweedie: whether NN1 sees ``x0h``; False is an ablation of the paper.
        time_scaling: whether the learned multiple ``NN2(t)`` of the guidance is added; False is an ablation.
        scan_features: whether the network is conditioned on the measurement, see ``Operator.features``.
        arc_direction: whether these features include the position of a limited arc.
        spread_slopes: how the logarithm of ``spread`` follows the features; empty for one value for all scans.
        tv_iterations: of the TV reconstruction.
        refinement: network that improves the initial reconstruction; None for none.
        operator_images: images that NN1 is given of the operator and its data, see ``Operator.feature_images``. One
            that the operator at hand does not declare is filled with its ``absent`` value.
        channels: image channels C, or features of each point.
        network: shape of NN1; its channels are set from the rest.

    Raises:
        ValueError: a value is unknown or not positive.
    """

    guidance: str = "fbp"
    reference: str = "tv"
    spread: float = 0.0
    reach: float = 0.0
    guidance_scale: float = 0.1
    guidance_spread: float = 0.2
    guidance_steps: int = 5
    use_tweedie: bool = True
    time_scaling: bool = True
    scan_features: bool = False
    arc_direction: bool = False
    spread_slopes: tuple[float, ...] = ()
    tv_iterations: int = 16
    refinement: RefinementConfig | None = None
    operator_images: tuple[FeatureImage, ...] = ()
    channels: int = 1
    network: NetworkConfig = field(default_factory=lambda: UNetConfig(channels=(64, 96, 128)))

    def __post_init__(self) -> None:
        check_fields(self)
        if self.spread == 0:
            usual = ESTIMATE_SPREAD if self.reference == NO_INITIAL else INITIAL_SPREAD
            object.__setattr__(self, "spread", usual)
        if self.reach < 0 or (self.reach and self.reference == NO_INITIAL):
            raise ValueError(f"reach must be positive and needs an initial reconstruction, got {self.reach}")
        if min(self.spread, self.guidance_scale, self.guidance_spread, self.guidance_steps) <= 0:
            raise ValueError("spread, guidance_scale, guidance_spread and guidance_steps must be positive")
        guidance, initial = self.guidance_object(), self.initial_object()
        if guidance.compares and initial is None:
            raise ValueError(
                f"guidance {self.guidance!r} compares with a reference: take reference fbp or tv, or guidance cg"
            )
        object.__setattr__(self, "spread_slopes", tuple(self.spread_slopes))
        object.__setattr__(self, "operator_images", tuple(self.operator_images))
        if len({image.name for image in self.operator_images}) < len(self.operator_images):
            raise ValueError(f"operator_images holds a name twice: {[image.name for image in self.operator_images]}")
        check_scan_fields(self.spread_slopes, scan_features=self.scan_features, arc_direction=self.arc_direction)
        if self.tv_iterations < 1:
            raise ValueError(f"tv_iterations must be at least 1, got {self.tv_iterations}")
        if self.refinement is not None and initial is None:
            raise ValueError("a refinement needs an initial reconstruction to improve: tv or fbp")
        if self.refinement is not None and self.refinement.scan_features:
            if self.refinement.arc_direction != self.arc_direction or not self.scan_features:
                raise ValueError("the h-transform and its refinement must see the same features of the scan")

    @property
    def features(self) -> int:
        """Images that enter NN1."""
        initial = int(self.initial_object() is not None)
        own = 2 + int(self.use_tweedie) + 2 * initial + int(self.guidance_object().compares)
        return own + len(self.operator_images)

    @property
    def layout(self) -> tuple[int | str, ...]:
        """Shape of one image, with a letter for each axis of any length: ``(1, "H", "W")``."""
        return self.network.layout(self.channels)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the h-transform takes images of a shape, ``(C, H, W)`` or ``(N, 3)``."""
        return len(shape) == len(self.layout) and all(
            isinstance(own, str) or own == given for own, given in zip(self.layout, shape, strict=True)
        )

    def guidance_object(self) -> Guidance:
        """The guidance by its stored name.

        Raises:
            ValueError: the name is unknown.
        """
        return guidance_for(self.guidance, spread=self.guidance_spread, steps=self.guidance_steps)

    def initial_object(self) -> InitialReconstruction | None:
        """The initial reconstruction by its stored name; None for the form without one.

        Raises:
            ValueError: the name is unknown.
        """
        return None if self.reference == NO_INITIAL else initial_for(self.reference, iterations=self.tv_iterations)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; later additions only where they are used, so that older models keep their hash."""
        values = asdict(self) | {"network": self.network.to_dict(), "spread_slopes": list(self.spread_slopes)}
        values |= {_OUTPUT: "image"} if self.reference == NO_INITIAL else {}
        values["operator_images"] = [asdict(image) for image in self.operator_images]
        values["refinement"] = None if self.refinement is None else self.refinement.to_dict()
        unused = {
            name
            for name in ("scan_features", "arc_direction", "spread_slopes", "refinement", "operator_images")
            if not values[name]
        }
        unused |= set() if self.reach else {"reach"}
        unused |= {"tv_iterations"} if self.tv_iterations == 16 else set()
        unused |= {"guidance_spread", "guidance_steps"} if not self.guidance_object().has_settings else set()
        return {name: value for name, value in values.items() if name not in unused}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> HTransformConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: a value is missing, of another type or out of range.
        """
        if not isinstance(values, dict) or "network" not in values:
            raise ValueError(f"expected the description of an h-transform, got {str(values)[:80]}")
        if values.get("reference") == NO_INITIAL and values.get(_OUTPUT) != "image":
            raise ValueError("the h-transform predicts the noise, which is no longer supported: train it again")
        values = {name: value for name, value in values.items() if name != _OUTPUT}
        refinement = values.get("refinement")
        built = {
            "network": network_config(values["network"]),
            "refinement": None if refinement is None else RefinementConfig.from_dict(refinement),
            "operator_images": tuple(
                from_values(FeatureImage, image)
                for image in fitted(values.get("operator_images", []), list, "operator_images")
            ),
        }
        return from_values(HTransformConfig, values | built)
