"""The BKSE generator: layout of the public checkpoint, strict loading, kernel codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.operators import NonlinearBlur, preset
from deft_ct.operators.image import bkse
from deft_ct.operators.image.bkse import BKSEGenerator, load_bkse, sample_code


@pytest.fixture
def small(tmp_path: Path) -> tuple[BKSEGenerator, Path]:
    """A narrow network with random weights, saved with the names of the public checkpoint."""
    torch.manual_seed(0)
    network = BKSEGenerator(3, features=4, front_blocks=2, back_blocks=3)
    state: dict[str, Tensor] = dict(network.state_dict())
    state["kernel_extractor.model.1.weight"] = torch.zeros(1)  # the part that blurring does not use
    torch.save(state, tmp_path / "weights.pth")
    return network, tmp_path / "weights.pth"


def test_the_full_size_has_the_parameters_of_the_public_network() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in BKSEGenerator().state_dict().items()}
    assert shapes["feature_extractor.0.weight"] == (64, 3, 3, 3)
    assert shapes["feature_extractor.15.conv2.bias"] == (64,)
    assert shapes["adapter.model.down.0.weight"] == (64, 64, 4, 4)
    bottom = "adapter.model" + 4 * ".submodule"
    assert shapes[f"{bottom}.down.1.weight"] == (512, 512, 4, 4)
    assert shapes[f"{bottom}.up.1.weight"] == (1024, 512, 4, 4) and f"{bottom}.up.1.bias" not in shapes
    assert shapes["adapter.model.up.1.weight"] == (128, 64, 4, 4) and shapes["adapter.model.up.1.bias"] == (64,)
    assert shapes["recon_trunk.20.weight"] == (256, 64, 3, 3) and shapes["recon_trunk.28.weight"] == (3, 64, 3, 3)
    assert not any(name.startswith(f"{bottom}.submodule") for name in shapes)


def test_weights_are_read_strictly(small: tuple[BKSEGenerator, Path], tmp_path: Path) -> None:
    network, path = small
    loaded = load_bkse(path)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    state = torch.load(path, weights_only=True)
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch.save(prefixed, tmp_path / "parallel.pth")
    assert torch.equal(load_bkse(tmp_path / "parallel.pth").recon_trunk[-1].bias, network.recon_trunk[-1].bias)
    del state["recon_trunk.0.conv2.bias"]
    torch.save(state, tmp_path / "incomplete.pth")
    with pytest.raises(ValueError, match=r"(?s)no BKSE checkpoint.*recon_trunk\.0\.conv2\.bias"):
        load_bkse(tmp_path / "incomplete.pth")
    torch.save({"params": state}, tmp_path / "nested.pth")  # the wrong-key mistake that loads nothing
    with pytest.raises(ValueError, match=r"feature_extractor\.0\.weight"):
        load_bkse(tmp_path / "nested.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        load_bkse(tmp_path / "list.pth")
    with pytest.raises(FileNotFoundError, match="no BKSE weights"):
        load_bkse(tmp_path / "absent.pth")


def test_operator_has_one_fixed_code_and_a_gradient(small: tuple[BKSEGenerator, Path]) -> None:
    _, path = small
    operator = NonlinearBlur.bkse((3, 128, 256), path)
    x = 2 * torch.rand(2, 3, 128, 256, generator=torch.Generator().manual_seed(1)) - 1
    y = operator(x)
    assert y.shape == x.shape and float(y.abs().max()) <= 1
    assert torch.equal(y, operator(x)) and torch.equal(y, NonlinearBlur.bkse((3, 128, 256), path)(x))
    torch.testing.assert_close(y[:1], operator(x[:1]))
    other = NonlinearBlur.bkse((3, 128, 256), path, code=torch.ones(32, 1, 2))
    assert not torch.equal(other(x), y)
    assert float(operator.vjp(x, torch.ones_like(y)).abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in operator.parameters())


def _published_generator(state: dict[str, Tensor], sharp: Tensor, code: Tensor) -> Tensor:
    """The generator of the public code, written out layer by layer for two and three residual blocks."""

    def convolve(name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding)

    def leaky(x: Tensor, slope: float = 0.1) -> Tensor:
        return x.clamp_min(0) + slope * x.clamp_max(0)

    def residual(name: str, x: Tensor) -> Tensor:
        return x + convolve(f"{name}.conv2", convolve(f"{name}.conv1", x).clamp_min(0))

    def level(depth: int, x: Tensor) -> Tensor:
        name = "adapter.model" + depth * ".submodule"
        down = convolve(f"{name}.down.{min(depth, 1)}", x if depth == 0 else leaky(x, 0.2), 2)
        inside = torch.cat([down, code], 1) if depth == 4 else level(depth + 1, down)
        weight, bias = state[f"{name}.up.1.weight"], state.get(f"{name}.up.1.bias")
        up = functional.conv_transpose2d(inside.clamp_min(0), weight, bias, 2, 1)
        return up.tanh() if depth == 0 else torch.cat([up, x], 1)

    x = leaky(convolve("feature_extractor.0", sharp))
    for number in (2, 4):
        x = leaky(convolve(f"feature_extractor.{number}", x, 2))
    for number in (6, 7):
        x = residual(f"feature_extractor.{number}", x)
    x = level(0, x)
    for number in (0, 1, 2):
        x = residual(f"recon_trunk.{number}", x)
    for number in (3, 6):
        x = leaky(functional.pixel_shuffle(convolve(f"recon_trunk.{number}", x), 2))
    return sharp + convolve("recon_trunk.11", leaky(convolve("recon_trunk.9", x)))


def test_the_layers_are_those_of_the_public_network(small: tuple[BKSEGenerator, Path]) -> None:
    network, _ = small
    rng = torch.Generator().manual_seed(2)
    # Weights that keep the signal alive to the last layer, so that each activation counts.
    state = {
        n: torch.randn(v.shape, generator=rng).double() / v[0].numel() ** 0.5 for n, v in network.state_dict().items()
    }
    network.double().load_state_dict(state)
    sharp, code = torch.rand(2, 3, 128, 128, generator=rng).double(), torch.randn(2, 32, 1, 1, generator=rng).double()
    expected = _published_generator(state, sharp, code)
    assert float((expected - sharp).abs().mean()) > 0.1
    torch.testing.assert_close(network(sharp, code), expected, rtol=1e-9, atol=1e-9)


def test_codes_are_those_of_the_literature() -> None:
    code = sample_code((256, 256))
    assert code.shape == (512, 2, 2)
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(42)  # how DEFT draws it
        expected = 1.2 * torch.randn(1, 512, 2, 2)[0]
    finally:
        torch.random.set_rng_state(state)
    assert torch.equal(code, expected)
    with pytest.raises(ValueError, match="multiples of 128"):
        sample_code((256, 200))


def test_presets_of_the_nonlinear_blur_need_the_weights(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"bkse_weights='.*GOPRO_wVAE\.pth'"):
        preset("daps", "nonlinear-blur", (3, 128, 128), generator)
    torch.manual_seed(0)
    network = BKSEGenerator(3, features=64, front_blocks=1, back_blocks=1)  # full width, for the 512 code channels
    path = tmp_path / "wide.pth"
    torch.save(network.state_dict(), path)
    operators = {
        name: preset(name, "nonlinear-blur", (3, 128, 128), generator, bkse_weights=path)[0]
        for name in ("dps", "daps", "deft")
    }
    codes = {name: dict(operator.named_buffers())["model.code"] for name, operator in operators.items()}
    expected = 1.2 * np.random.RandomState(0).randn(1, 512, 1, 1)[0]
    np.testing.assert_allclose(codes["daps"], expected, rtol=1e-6)
    assert torch.equal(codes["deft"], sample_code((128, 128)))
    assert not torch.equal(codes["dps"], codes["deft"])
    for seed in range(4):  # one draw of the generator is the seed of the code
        drawn, same = (torch.Generator().manual_seed(seed) for _ in range(2))
        blur = preset("dps", "nonlinear-blur", (3, 128, 128), drawn, bkse_weights=path)[0]
        expected = sample_code((128, 128), seed=int(torch.randint(2**31, (), generator=same)))
        assert torch.equal(dict(blur.named_buffers())["model.code"], expected)


def test_a_code_is_for_images_of_its_size(small: tuple[BKSEGenerator, Path]) -> None:
    blur = bkse.BKSEBlur(load_bkse(small[1]), torch.zeros(1, 512, 2, 3))
    for shape in ((1, 3, 64, 96), (1, 3, 128, 128)):
        with pytest.raises(ValueError, match=r"BKSEBlur: the kernel code is for images of \(\d+, \d+\), got"):
            blur(torch.zeros(shape))
