"""What the trained methods share: the model, its folder on disk, and the method around it."""

from __future__ import annotations

import abc
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from deft_ct.ct.trained_range import training_finding
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.initial import check_initial
from deft_ct.networks import UNet, UNetConfig, content_hash, network_config
from deft_ct.networks.kinds import NETWORKS
from deft_ct.networks.precision import Precision, network_precision
from deft_ct.networks.storage import ModelFormat
from deft_ct.operators.findings import Finding
from deft_ct.operators.linear import LinearOperator
from deft_ct.reconstruction import Request
from deft_ct.reconstructor import NetworkSource, Reconstructor, UnsupportedError
from deft_ct.runtime.evaluations import add_evaluations
from deft_ct.runtime.fields import fitted, from_values
from deft_ct.runtime.read_error import ReadError
from deft_ct.training.pairs import Pairs

METADATA = "model.json"
FORMAT = ModelFormat(
    noun="trained model",
    assets="models",
    weights="model.safetensors",
    metadata=METADATA,
    remedy="train one with `deft-ct train`, and pass its folder as model=",
)


class TrainedModel(nn.Module, abc.ABC):
    """A network with everything that gives its weights a meaning.

    Subclasses set :attr:`kind` and :attr:`shape_type` and write :meth:`training_loss`.

    Args:
        shape: a frozen dataclass of :attr:`shape_type`: layers, features, what the network sees.
        value_range: HU that -1 and +1 of its images stand for.
        card: free JSON metadata: scan, data, training.
    """

    kind: ClassVar[str]
    trained_by: ClassVar[str] = ""
    """The command that trains it; ``deft-ct train KIND`` where empty."""
    shape_type: ClassVar[type]

    def __init__(
        self, shape: Any, *, value_range: PriorRange | None = None, card: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.shape = shape
        self.value_range = value_range or PriorRange()
        self.card = dict(card or {})
        self.precision: Precision = "float32"
        """Of the network evaluations, see ``network_precision``; not a part of the model."""
        self.evaluations = 0
        """Network evaluations so far, one for each image of each call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the network in :attr:`precision`."""
        with network_precision(next(self.parameters()).device, self.precision):
            return super().__call__(*args, **kwargs)

    def count(self, images: int) -> None:
        """Count the evaluation of a batch; :meth:`forward` of every model calls it once."""
        self.evaluations += images
        add_evaluations(images)

    def check(self, likelihood: Likelihood) -> None:
        """Raise ``UnsupportedError`` for a measurement that the model cannot be used with, before any work.

        By default a model starts from the initial reconstruction that its shape names.
        """
        check_initial(self.kind, likelihood, self.shape.reference)

    @abc.abstractmethod
    def training_loss(self, network: nn.Module, pairs: Pairs, generator: torch.Generator) -> Tensor:
        """Scalar loss of training pairs.

        Args:
            network: this model, or a wrapper of it (distributed, mixed precision, compiled); what is differentiated.
            pairs: images in the value range, with the likelihood of their data.
            generator: source of all randomness, on the device of the training.
        """

    def description(self) -> dict[str, Any]:
        """Everything but the weights and the card, JSON-ready."""
        span = self.value_range
        shape = asdict(self.shape)
        for field in fields(self.shape):  # networks in their own words, which later additions do not change
            value = getattr(self.shape, field.name)
            if type(value) in NETWORKS.values():
                shape[field.name] = value.to_dict()
        return {"kind": self.kind, "shape": shape, "value_range_hu": [span.low, span.high]}

    def content_hash(self) -> str:
        """SHA-256 of the weights and of what gives them meaning."""
        return content_hash(self, self.description())

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write the model as a folder; an existing one there is replaced in one step."""
        meta = {**self.description(), "card": self.card, "sha256": self.content_hash()}
        FORMAT.write(folder, self.state_dict(), meta, dtype=dtype)

    @classmethod
    def load(cls, name_or_path: str | Path | None = None) -> Self:
        """Load a model by path, or by the name of a shipped one.

        Args:
            name_or_path: folder written by :meth:`save`, a shipped name, ``"hf:OWNER/NAME"``, or None for the one that
                is called like :attr:`kind`.

        Returns:
            The model in float32 on the CPU, frozen.

        Raises:
            FileNotFoundError: there is no such model.
            ReadError: it is of another kind, or damaged.
        """
        if name_or_path is None and cls.kind not in FORMAT.shipped():
            raise FileNotFoundError(
                f"no {cls.kind} model comes with this installation; train one with "
                f"`{cls.trained_by or 'deft-ct train ' + cls.kind.replace('_', '-')}`, and pass its folder as model="
            )
        folder = FORMAT.find(name_or_path or cls.kind)
        meta, weights = FORMAT.read(folder)
        if meta.get("kind") != cls.kind:
            raise ReadError(folder, f"holds a model of kind {str(meta.get('kind'))[:80]!r}; expected {cls.kind!r}")
        with FORMAT.using(folder):
            span = PriorRange(*fitted(meta["value_range_hu"], tuple[float, float], "value_range_hu"))
            shape, card = _shape(cls.shape_type, meta["shape"]), fitted(meta["card"], dict, "card")
            model = FORMAT.build(lambda: cls(shape, value_range=span, card=card), weights)
            FORMAT.check(folder, model.content_hash(), meta["sha256"])
        return model.eval().requires_grad_(False)


class TrainedReconstructor(Reconstructor):
    """A method around a :class:`TrainedModel`.

    Args:
        model: of :attr:`model_type`.
        config: of :attr:`config_type`; its defaults when None.
    """

    model_type: ClassVar[type[TrainedModel]]

    def __init__(self, model: TrainedModel, config: Any = None) -> None:
        if not isinstance(model, self.model_type):
            raise TypeError(f"{self.name} needs a {self.model_type.__name__}, got {type(model).__name__}")
        super().__init__(config if config is not None else self.config_type())
        self.model: Any = model.eval()

    @classmethod
    def from_networks(cls, config: Any, networks: NetworkSource) -> Self:
        """Build the method with the trained model that ``networks`` has for it."""
        return cls(networks.load_model(cls.name, cls.model_type), config)

    def describe(self) -> dict[str, Any]:
        """Hash, card and precision of the model."""
        return {
            "model_sha256": self.model.content_hash(), "model_card": self.model.card,
            "network_precision": self.model.precision,
        }  # fmt: skip

    def _check(self, request: Request) -> None:
        shape = request.image_shape
        if len(shape) != 3 or shape[0] != 1:
            raise UnsupportedError(f"{self.name} is for images of shape (1, H, W), and these are of shape {shape}")
        try:
            likelihood = request.measurement.likelihood(request.y, self.model.value_range)
        except ValueError as error:
            raise UnsupportedError(f"{self.name} cannot use this model: {error}") from None
        self.model.check(likelihood)

    def _advice(self, request: Request) -> tuple[Finding, ...]:
        """A scan that the model was not trained for."""
        found = training_finding(self.name, self.model.card, request.measurement)
        return () if found is None else (found,)

    def _likelihood(self, request: Request) -> Likelihood:
        """The data term in the range of the model."""
        return request.measurement.likelihood(request.y, self.model.value_range)


def check_unrolled(name: str, likelihood: Likelihood, *, told_scan: bool) -> None:
    """Refuse data that an unrolled iteration cannot be used with, before any work.

    Args:
        name: of the method.
        likelihood: the measurement with its data.
        told_scan: whether its networks see the features of the operator.

    Raises:
        UnsupportedError: the operator is not linear or not on images with one channel, the data are before the
            logarithm or not ``(B, 1, v, d)``, or the operator has no features.
    """
    operator = likelihood.operator
    if not isinstance(operator, LinearOperator):
        raise UnsupportedError(f"{name} needs a linear operator, {type(operator).__name__} is not")
    if len(operator.domain_shape) != 2:
        raise UnsupportedError(
            f"{name} needs an operator on images (H, W) with one channel, {type(operator).__name__} is on "
            f"{operator.domain_shape}"
        )
    if likelihood.y.ndim != 4 or likelihood.y.shape[1] != 1:
        raise UnsupportedError(
            f"{name} needs data with one channel, (B, 1, {', '.join(map(str, operator.range_shape))}), got "
            f"{tuple(likelihood.y.shape)}"
        )
    check_initial(name, likelihood, "fbp")
    if told_scan:
        try:
            _ = likelihood.features
        except ValueError as error:
            raise UnsupportedError(f"{name} is conditioned on the scan: {error}") from None


def image_network(config: UNetConfig, inputs: int) -> UNet:
    """A U-Net from ``inputs`` images to one, whose output starts at zero."""
    network = UNet(UNetConfig(**{**config.to_dict(), "in_channels": inputs, "out_channels": 1}))
    for parameter in network.conv_out.parameters():
        nn.init.zeros_(parameter)
    return network


def _shape(shape_type: type, values: dict[str, Any]) -> Any:
    if isinstance(values, dict):
        networks = {name: network_config(value) for name, value in values.items() if isinstance(value, dict)}
        values = values | networks
    return from_values(shape_type, values)
