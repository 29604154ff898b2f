"""What the package asks of a network that is conditioned on a time: a configuration that builds it, and its interface.

A batch is ``(B, *image_shape)``: images ``(B, C, H, W)``, points ``(B, N, F)``.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

Config = TypeVar("Config", bound="NetworkConfig")


class TimeNetwork(nn.Module, abc.ABC):
    """A network ``network(x, t, extra=None)`` on batches ``(B, *image_shape)``.

    Attributes:
        config: its shape.
        first_layer: name of the layer that takes ``x``.
        last_layer: name of the layer that makes the output.
    """

    config: NetworkConfig
    first_layer: ClassVar[str]
    last_layer: ClassVar[str]

    @property
    @abc.abstractmethod
    def embedding_width(self) -> int:
        """Features of the time embedding, to which ``extra`` is added."""

    def zero_output(self) -> None:
        """Set the last layer to zero, so that the network starts by predicting nothing."""
        for parameter in self.get_submodule(self.last_layer).parameters():
            nn.init.zeros_(parameter)

    def start_from(self, other: nn.Module) -> None:
        """Copy the weights of another network where the shapes allow, all but the output layer.

        The first image of this network takes the place of the only one of the other, and further ones start with half
        of their weights. Does nothing for a network of another class.
        """
        if not isinstance(other, type(self)):
            return
        own = self.state_dict()  # shares memory with the parameters
        for name, value in other.state_dict().items():
            if name.startswith(f"{self.last_layer}.") or name not in own:
                continue
            weight, known = own[name], value.shape[1] if value.ndim > 1 else 0
            if weight.shape == value.shape:
                weight.copy_(value)
            elif name == f"{self.first_layer}.weight" and len(weight) == len(value) and known < weight.shape[1]:
                weight[:, :known].copy_(value)
                weight[:, known:].mul_(0.5)

    @abc.abstractmethod
    def forward(self, x: Tensor, t: Tensor, extra: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: images or points; several inputs are joined along the channel axis.
            t: times, ``(B,)``.
            extra: ``(B, embedding_width)``, added to the time embedding.

        Returns:
            Of the shape of ``x`` but for the channels.
        """


class NetworkConfig(Protocol):
    """Shape of a :class:`TimeNetwork`: a frozen dataclass that knows how to build it."""

    def build(self) -> TimeNetwork:
        """The network, with random weights."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, with the kind of the network."""
        ...

    def small(self, width: int) -> NetworkConfig:
        """A small network of the same kind for the same data, with ``width`` features."""
        ...

    def with_channels(self: Config, inputs: int, outputs: int) -> Config:
        """The same shape for other numbers of channels in and out."""
        ...

    def layout(self, channels: int) -> tuple[int | str, ...]:
        """Shape of one image with ``channels``, and a letter for each axis of any length: ``(channels, "H", "W")``."""
        ...


def channel_axis(x: Tensor) -> int:
    """Axis of the channels of a batch: 1 for images, the last one for points ``(B, N, F)``."""
    return 2 if x.ndim == 3 else 1
