"""Image operators against independent implementations: torch, SciPy, NumPy, scikit-image, Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.ndimage
import torch
from pictures import picture, rng, to_tensor
from PIL import Image
from skimage import color
from torch.nn import functional

from deft_ct.operators import (
    HDR,
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    NonlinearBlur,
    PhaseRetrieval,
    Quantisation,
    SeparableBlur,
    SuperResolution,
)
from deft_ct.operators.image.blur_kernels import gaussian_taps, motion_kernel
from deft_ct.operators.image.transforms import dct_matrix, fast_size, walsh_hadamard

SCIPY_MODES = {"reflect": "mirror", "circular": "wrap", "zero": "constant"}


def test_average_pooling_is_that_of_torch() -> None:
    x = to_tensor(picture())
    torch.testing.assert_close(SuperResolution((3, 64, 64), 4)(x), functional.avg_pool2d(x, 4))
    y = torch.rand(1, 3, 16, 16, generator=rng(), dtype=torch.float64)
    spread = functional.interpolate(y, scale_factor=4, mode="nearest")
    operator = SuperResolution((3, 64, 64), 4)
    torch.testing.assert_close(operator.adjoint(y), spread / 16)
    torch.testing.assert_close(operator.pseudo_inverse(y), spread)


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_is_the_antialiased_one_of_torch_and_pillow(scale: int) -> None:
    image = picture()
    x = to_tensor(image)
    ours = SuperResolution((3, 64, 64), scale, "bicubic")(x)
    # The border rules differ: they cut the kernel off and renormalise, MATLAB and we mirror the image.
    inside = (..., slice(2, -2), slice(2, -2))
    theirs = functional.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-6, atol=1e-6)
    pillow = np.stack([
        np.asarray(Image.fromarray(x[0, c].float().numpy()).resize((64 // scale,) * 2, Image.Resampling.BICUBIC))
        for c in range(3)
    ])  # fmt: skip
    np.testing.assert_allclose(ours[0].numpy()[inside], pillow[inside], atol=1e-5)
    constant = SuperResolution((3, 64, 64), scale, "bicubic")(torch.ones(3, 64, 64, dtype=torch.float64))
    torch.testing.assert_close(constant, torch.ones_like(constant))


@pytest.mark.parametrize("boundary", ["reflect", "circular", "zero"])
def test_gaussian_blur_is_that_of_scipy(boundary: str) -> None:
    x = to_tensor(picture(40))
    ours = GaussianBlur((3, 40, 40), 61, 3.0, boundary=boundary)(x)[0].numpy()
    theirs = [scipy.ndimage.gaussian_filter(channel, 3.0, mode=SCIPY_MODES[boundary]) for channel in x[0].numpy()]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_kernel_of_dps_is_the_outer_product_of_our_taps() -> None:
    delta = np.zeros((61, 61))
    delta[30, 30] = 1
    taps = gaussian_taps(61, 3.0).numpy()
    np.testing.assert_allclose(np.outer(taps, taps), scipy.ndimage.gaussian_filter(delta, 3.0), atol=1e-15)


@pytest.mark.parametrize("boundary", ["reflect", "circular", "zero"])
@pytest.mark.parametrize("shape", [(24, 31), (7, 9)])  # the second is smaller than the kernel
def test_blur_is_the_convolution_of_scipy(boundary: str, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    x, kernel = generator.normal(size=(2, *shape)), generator.uniform(size=(11, 13))
    ours = Blur((2, *shape), torch.from_numpy(kernel), boundary=boundary)(torch.from_numpy(x)[None])[0].numpy()
    mode = {"reflect": "reflect", "circular": "wrap", "zero": "constant"}[boundary]
    padded = np.pad(x, ((0, 0), (5, 5), (6, 6)), mode=mode)
    theirs = [scipy.ndimage.convolve(channel, kernel, mode="constant")[5:-5, 6:-6] for channel in padded]
    np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_separable_blur_is_the_blur_by_the_outer_product() -> None:
    taps = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.4], dtype=torch.float64)
    x = to_tensor(picture(20))
    expected = Blur((3, 20, 20), torch.outer(taps, taps), boundary="zero")(x)
    torch.testing.assert_close(SeparableBlur((3, 20, 20), taps, boundary="zero")(x), expected)


def test_motion_kernels_are_paths_of_unit_mass() -> None:
    previous = None
    for intensity in (0.0, 0.5, 1.0):
        for seed in range(5):
            kernel = motion_kernel(61, intensity, rng(seed))
            assert kernel.shape == (61, 61) and float(kernel.min()) >= 0
            assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
            position = torch.arange(61, dtype=torch.float64) - 30
            centre = ((kernel.sum(1) * position).sum(), (kernel.sum(0) * position).sum())
            assert max(abs(float(c)) for c in centre) < 0.05  # no shift of the image
            assert torch.equal(kernel, motion_kernel(61, intensity, rng(seed)))
            assert previous is None or not torch.equal(kernel, previous)
            assert 20 < int((kernel > 0).sum()) < 1200
            previous = kernel
    # Without intensity the path is straight: all its mass lies on a line, one principal axis.
    kernel = motion_kernel(61, 0.0, rng(1))
    grid = torch.cartesian_prod(position, position)
    covariance = (grid * kernel.reshape(-1, 1)).T @ grid
    assert float(torch.linalg.eigvalsh(covariance)[0]) < 0.5


def test_grey_images_are_those_of_scikit_image() -> None:
    image = picture()
    ours = Colorization((3, 64, 64), "luma")(to_tensor(image))[0, 0].numpy()
    luma = color.rgb2ycbcr(image)[..., 0]  # studio range: 16..235
    np.testing.assert_allclose((ours + 1) / 2, (luma - 16) / 219, atol=2e-4)
    mean = Colorization((3, 64, 64))(to_tensor(image))[0, 0].numpy()
    np.testing.assert_allclose(mean, (image / 127.5 - 1).mean(-1), atol=1e-12)


def test_hdr_is_the_formula() -> None:
    x = to_tensor(picture())
    np.testing.assert_allclose(HDR((3, 64, 64))(x), np.clip(2 * x.numpy(), -1, 1))


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_phase_retrieval_is_the_padded_transform_of_numpy(low: float) -> None:
    x = to_tensor(picture())
    operator = PhaseRetrieval((3, 64, 64), 2.0, amplitude_range=(low, 1.0))
    amplitude = x[0].numpy() if low == -1 else (x[0].numpy() + 1) / 2
    padded = np.pad(amplitude, ((0, 0), (16, 16), (16, 16)))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(-2, -1)))
    np.testing.assert_allclose(operator(x)[0], expected, atol=1e-12)
    assert PhaseRetrieval((3, 256, 256)).range_shape == (3, 384, 384)


def test_magnitude_projection_keeps_a_solution_and_improves_a_guess() -> None:
    x = to_tensor(picture())
    operator = PhaseRetrieval((3, 64, 64))
    y = operator(x)
    torch.testing.assert_close(operator.project_magnitude(x, y), x)
    guess = x + 0.3 * torch.randn(x.shape, generator=rng(), dtype=x.dtype)
    before = (operator(guess) - y).norm()
    assert (operator(operator.project_magnitude(guess, y)) - y).norm() < before
    # Error reduction: from a rough guess it comes close to the data. Hybrid input-output wanders before it does.
    for iterations, bound in ((0, 0.1), (20, 0.2)):
        found = operator.hybrid_input_output(y, guess, iterations=iterations, reductions=50)
        assert (operator(found) - y).norm() < bound * before
        assert float(found.min()) >= -1 and float(found.max()) <= 1
    torch.testing.assert_close(operator.hybrid_input_output(y, x, iterations=3, reductions=3), x)


def test_quantisation_levels() -> None:
    y = Quantisation((1, 1, 5), 1)(torch.tensor([[[-1.5, -0.3, 0.2, 0.9, 2.0]]]))
    assert y.flatten().tolist() == [-1, -1, 1, 1, 1]
    ramp = torch.linspace(0, 1, 1000).reshape(1, 1, -1)
    levels = Quantisation((1, 1, 1000), 3, value_range=(0.0, 1.0))(ramp).unique()
    torch.testing.assert_close(levels, torch.arange(8) / 7)


def test_transforms_are_those_of_scipy() -> None:
    x = np.random.default_rng(0).normal(size=(3, 16))
    np.testing.assert_allclose(x @ dct_matrix(16).numpy().T, scipy.fft.dct(x, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(walsh_hadamard(torch.from_numpy(x)), x @ scipy.linalg.hadamard(16) / 4, atol=1e-12)
    with pytest.raises(ValueError, match="power of two"):
        walsh_hadamard(torch.zeros(3, 12))
    for size in range(1, 200):
        fast = fast_size(size)
        assert fast >= size and set(int(p) for p in _prime_factors(fast)) <= {2, 3, 5}


def _prime_factors(n: int) -> list[int]:
    return [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]


def test_compressed_sensing_takes_rows_of_the_hadamard_matrix() -> None:
    operator = CompressedSensing((1, 4, 8), 0.5, rng(2))
    matrix = operator(torch.eye(32, dtype=torch.float64).reshape(32, 1, 4, 8))[:, 0].T.numpy()
    np.testing.assert_allclose(np.abs(matrix), 1 / np.sqrt(32))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("transform", ["hadamard", "dct"])
def test_compressed_sensing_draws_signs_and_rows(transform: str) -> None:
    """The transform of SciPy of the image with random signs; of its coefficients a random choice, in order."""
    operator = CompressedSensing((2, 4, 8), 0.3, rng(2), transform=transform)  # type: ignore[arg-type]
    source = rng(2)
    signs = 2 * torch.randint(2, (4, 8), generator=source).numpy() - 1
    rows = np.sort(torch.randperm(32, generator=source).numpy()[:10])
    assert set(signs.ravel().tolist()) == {-1, 1}
    x = torch.rand(3, 2, 4, 8, generator=rng(), dtype=torch.float64)
    signed = signs * x.numpy()
    if transform == "dct":
        spectrum = scipy.fft.dctn(signed, axes=(-2, -1), norm="ortho").reshape(3, 2, 32)
    else:
        spectrum = signed.reshape(3, 2, 32) @ scipy.linalg.hadamard(32) / np.sqrt(32)
    np.testing.assert_allclose(operator(x), spectrum[..., rows], atol=1e-12)
    assert operator.length == 32


def test_camera_shake_is_nonlinear_varies_over_the_image_and_keeps_grey() -> None:
    operator = NonlinearBlur.camera((1, 64, 64), rng(3), kernel_size=15, exposure=1.0)
    grey = torch.full((1, 1, 64, 64), 0.1, dtype=torch.float64)
    torch.testing.assert_close(operator(grey), grey, rtol=0, atol=1e-4)  # the two branches of the curve meet to 1e-5
    spots = torch.full((1, 1, 64, 64), -1.0, dtype=torch.float64)
    spots[..., 16, 16] = spots[..., 48, 48] = 1.0
    blurred = operator(spots)[0, 0] + 1
    assert not torch.allclose(blurred[8:25, 8:25], blurred[40:57, 40:57], atol=0.05)
    x, black = to_tensor(picture())[:, :1], -torch.ones_like(grey)
    # Spots of half the brightness in the data give more than half the blur: light adds up, grey levels do not.
    middle = operator((spots + black) / 2) - (operator(spots) + operator(black)) / 2
    assert float(middle.abs().max()) > 0.02
    bright = NonlinearBlur.camera((1, 64, 64), rng(3), kernel_size=15, exposure=4.0)(x)
    assert float((bright > 1 - 1e-9).double().mean()) > 0.1


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_hybrid_input_output_is_fienups_in_numpy(iterations: int) -> None:
    """Inside the constraints the new estimate, outside of them the old one less beta times the new one."""
    operator, beta = PhaseRetrieval((1, 16, 8), 2.0), 0.7
    x = 2 * torch.rand((1, 1, 16, 8), generator=rng(), dtype=torch.float64) - 1
    guess = 2 * torch.rand((1, 1, 16, 8), generator=rng(), dtype=torch.float64).flip(-1) - 1
    y = operator(x)
    support = np.pad(np.ones((16, 8)), ((4, 4), (2, 2)))
    state = np.pad((guess[0, 0].numpy() + 1) / 2, ((4, 4), (2, 2)))
    magnitude = np.fft.ifftshift(y[0, 0].numpy())
    for step in range(iterations + 2):
        phase = np.angle(np.fft.fft2(np.fft.ifftshift(state), norm="ortho"))
        new = np.fft.fftshift(np.fft.ifft2(magnitude * np.exp(1j * phase), norm="ortho")).real
        inside = (support == 1) & (new >= 0) & (new <= 1)
        kept = state - beta * new if step < iterations else support * new.clip(0, 1)
        state = np.where(inside, new, kept)
    expected = 2 * state[4:-4, 2:-2].clip(0, 1) - 1
    found = operator.hybrid_input_output(y, guess, iterations=iterations, reductions=2, beta=beta)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-9)


@pytest.mark.parametrize("sides", [(1, 7), (7, 1), (3, 9), (9, 3)])
@pytest.mark.parametrize("boundary", ["reflect", "zero", "circular"])
def test_a_blur_with_a_long_kernel_is_that_of_scipy(sides: tuple[int, int], boundary: str) -> None:
    x = torch.rand((1, 1, 12, 15), generator=rng(), dtype=torch.float64)
    kernel = torch.rand(sides, generator=rng(), dtype=torch.float64)
    mode = {"reflect": "mirror", "zero": "constant", "circular": "wrap"}[boundary]
    expected = scipy.ndimage.convolve(x[0, 0].numpy(), kernel.numpy(), mode=mode)
    operator = Blur((1, 12, 15), kernel, boundary=boundary)  # type: ignore[arg-type]
    np.testing.assert_allclose(operator(x)[0, 0], expected, atol=1e-10)


def test_dark_light_is_linear_in_srgb() -> None:
    """IEC 61966-2-1, both ways, on either side of the thresholds."""
    from deft_ct.operators.image import nonlinear_blur

    light = torch.tensor([0.0, 1e-4, 0.002, 0.0031, 0.0032, 0.02, 0.5, 1.0], dtype=torch.float64)
    coded = np.where(light <= 0.0031308, 12.92 * light.numpy(), 1.055 * light.numpy() ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(nonlinear_blur._linear_to_srgb(light), coded, rtol=1e-9)
    np.testing.assert_allclose(nonlinear_blur._srgb_to_linear(torch.from_numpy(coded)), light, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("size", [0, -1, 2, 8])
def test_a_kernel_has_a_middle(size: int) -> None:
    with pytest.raises(ValueError, match=f"the kernel size must be odd and positive, got {size}"):
        gaussian_taps(size, 1.0)
    with pytest.raises(ValueError, match=f"the kernel size must be odd and positive, got {size}"):
        motion_kernel(size, 0.5, rng())


@pytest.mark.parametrize("intensity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("size", "steps"), [(61, 2000), (9, 40), (1, 5)])
def test_motion_kernels_are_those_of_a_second_program(size: int, steps: int, intensity: float) -> None:
    """The walk of Boracchi and Foi in vectors of NumPy, with the same random numbers; drawn pixel by pixel."""
    source = rng(7)
    draws = torch.randn(steps, 2, generator=source, dtype=torch.float64).numpy()
    chances, turns = torch.rand(steps, 2, generator=source, dtype=torch.float64).numpy().T
    headings = np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], -1)  # x, y
    at, velocity, path = np.zeros(2), headings[0].copy(), []
    for step in range(steps):
        path.append(at.copy())
        if step > 0 and chances[step] * steps < 5 * intensity:
            velocity = velocity + 2 * headings[step]
        velocity = velocity + intensity * (4 * draws[step] / np.sqrt(steps) - 6 * at / steps**2)
        velocity = velocity / np.hypot(*velocity)
        at = at + velocity
    points = np.array(path) - np.mean(path, 0)
    points = points * 0.75 * (size // 2) / np.abs(points).max() + size // 2
    expected = np.zeros((size, size))
    for x, y in points:  # a hat function of one pixel on each side
        rows = np.clip(1 - np.abs(np.arange(size) - y), 0, None)
        expected += np.outer(rows, np.clip(1 - np.abs(np.arange(size) - x), 0, None))
    np.testing.assert_allclose(
        motion_kernel(size, intensity, rng(7), steps=steps), expected / expected.sum(), atol=1e-12
    )


def test_frequencies_that_a_blur_removes_hold_no_data() -> None:
    """Of the mean of two neighbours the highest frequency is exactly zero, in both directions of the decomposition."""
    kernel = torch.zeros(1, 3, dtype=torch.float64)
    kernel[0, :2] = 0.5
    svd = Blur((1, 4, 8), kernel, boundary="circular").svd()
    gone = svd.singular_values == 0
    assert 0 < int(gone.sum()) < gone.numel()
    y = torch.rand(2, 1, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coefficients = svd.data_to_spectral(y)
    assert bool(coefficients.isfinite().all()) and bool((coefficients[:, gone] == 0).all())
    again = svd.data_from_spectral(coefficients)
    torch.testing.assert_close(svd.data_to_spectral(again), coefficients)
    torch.testing.assert_close(svd.data_from_spectral(coefficients + gone), again)


def test_fast_sizes_are_those_of_scipy() -> None:
    """Of real transforms, whose sizes have the factors 2, 3 and 5."""
    assert [fast_size(n) for n in range(1, 200)] == [scipy.fft.next_fast_len(n, real=True) for n in range(1, 200)]
