"""The neural blur of blur-kernel-space exploring (BKSE), ready for the authors' public weights.

Tran et al., "Explore image deblurring via encoded blur kernel space", CVPR 2021; the authors' repository
(VinAIResearch/blur-kernel-space-exploring) is under a BSD 3-clause licence. Only the generator that blurs an image by a
kernel code is written here, after its published layers and parameter names; the network that extracts a code from image
pairs is not needed. The weights are not shipped: get ``GOPRO_wVAE.pth`` from the authors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

_CODE_DIVISOR = 128  # two strided convolutions and five levels of the U-Net


class BKSEGenerator(nn.Module):
    """Blurs an image by a kernel code.

    Args:
        channels: image channels.
        features: width of the network (64 in the public weights); the code has eight times as many channels.
        front_blocks: residual blocks before the U-Net (10 in the public weights).
        back_blocks: residual blocks behind it (20 in the public weights).
    """

    def __init__(self, channels: int = 3, features: int = 64, front_blocks: int = 10, back_blocks: int = 20) -> None:
        super().__init__()
        self.code_channels = 8 * features
        # Positions in the sequences and attribute names are those of the public checkpoint.
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(channels, features, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(features, features, 3, 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(features, features, 3, 2, 1),
            nn.LeakyReLU(0.1),
            *(_Residual(features) for _ in range(front_blocks)),
        )
        self.adapter = _Adapter(features)
        self.recon_trunk = nn.Sequential(
            *(_Residual(features) for _ in range(back_blocks)),
            nn.Conv2d(features, 4 * features, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(features, 4 * 64, 3, 1, 1),
            nn.PixelShuffle(2),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, channels, 3, 1, 1),
        )

    def forward(self, sharp: Tensor, code: Tensor) -> Tensor:
        """Blur ``sharp``.

        Args:
            sharp: ``(B, C, H, W)`` in [0, 1], sides multiples of 128.
            code: ``(B, code_channels, H / 128, W / 128)``.

        Returns:
            ``(B, C, H, W)``, about in [0, 1].
        """
        blurred: Tensor = sharp + self.recon_trunk(self.adapter(self.feature_extractor(sharp), code))
        return blurred


class BKSEBlur(nn.Module):
    """The generator with one fixed kernel code: a map of images in [0, 1].

    Args:
        generator: the network; its parameters are frozen.
        code: ``(code_channels, h, w)``, the kernel code for images of ``(128 h, 128 w)``.
    """

    code: Tensor

    def __init__(self, generator: BKSEGenerator, code: Tensor) -> None:
        super().__init__()
        self.generator = generator.eval().requires_grad_(False)
        self.register_buffer("code", code)

    def forward(self, image: Tensor) -> Tensor:
        """Blur ``(B, C, H, W)``."""
        expected = (_CODE_DIVISOR * self.code.shape[-2], _CODE_DIVISOR * self.code.shape[-1])
        if tuple(image.shape[-2:]) != expected:
            raise ValueError(f"BKSEBlur: the kernel code is for images of {expected}, got {tuple(image.shape[-2:])}")
        code = self.code.to(image.dtype).expand(image.shape[0], -1, -1, -1)
        blurred: Tensor = self.generator.to(image.dtype)(image, code)
        return blurred


def sample_code(image_size: tuple[int, int], *, seed: int = 42, scale: float = 1.2, code_channels: int = 512) -> Tensor:
    """Gaussian kernel code; the default is the fixed code of DEFT (torch seed 42, times 1.2).

    Raises:
        ValueError: a side of the image is no multiple of 128.
    """
    if any(side % _CODE_DIVISOR for side in image_size):
        raise ValueError(f"BKSE works on images whose sides are multiples of {_CODE_DIVISOR}, got {image_size}")
    size = [side // _CODE_DIVISOR for side in image_size]
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(1, code_channels, *size, generator=generator)[0]


def load_bkse(path: str | Path) -> BKSEGenerator:
    """Read the public weights, strictly: every parameter of the generator must be in the file, with its shape.

    Args:
        path: the authors' ``GOPRO_wVAE.pth``, or any checkpoint with the same names; widths are read from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of this network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no BKSE weights at {path}; its authors (VinAIResearch/blur-kernel-space-exploring) offer GOPRO_wVAE.pth"
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no state dict but {type(state).__name__}")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    # The extractor estimates codes from image pairs; blurring by a given code does not use it.
    state = {key: value for key, value in state.items() if not key.startswith("kernel_extractor.")}
    first = state.get("feature_extractor.0.weight")
    if first is None:
        raise ValueError(f"{path} is no BKSE checkpoint: 'feature_extractor.0.weight' is missing")
    network = BKSEGenerator(
        channels=first.shape[1],
        features=first.shape[0],
        front_blocks=sum(key.startswith("feature_extractor.") and key.endswith(".conv1.weight") for key in state),
        back_blocks=sum(key.startswith("recon_trunk.") and key.endswith(".conv1.weight") for key in state),
    )
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no BKSE checkpoint: {error}") from error
    return network


class _Residual(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(functional.relu(self.conv1(x)))
        return out


class _Adapter(nn.Module):
    """U-Net of five levels; the kernel code joins the features at the bottom."""

    def __init__(self, features: int) -> None:
        super().__init__()
        level = _Level(8 * features, 8 * features, None)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            level = _Level(outer * features, inner * features, level)
        self.model = _Level(features, features, level, outermost=True)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        out: Tensor = self.model(x, code)
        return out


class _Level(nn.Module):
    def __init__(self, outer: int, inner: int, submodule: _Level | None, *, outermost: bool = False) -> None:
        super().__init__()
        down = nn.Conv2d(outer, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=outermost)
        self.down = nn.Sequential(down) if outermost else nn.Sequential(nn.LeakyReLU(0.2), down)
        if submodule is not None:
            self.submodule = submodule
        self.up = nn.Sequential(nn.ReLU(), up, nn.Tanh()) if outermost else nn.Sequential(nn.ReLU(), up)
        self.outermost, self.innermost = outermost, submodule is None

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        inside = self.down(x)
        inside = torch.cat((inside, code), dim=1) if self.innermost else self.submodule(inside, code)
        out: Tensor = self.up(inside)
        return out if self.outermost else torch.cat((out, x), dim=1)
