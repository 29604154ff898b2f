import pytest
import torch
from strict_tensor import StrictTensor
from tiny import tiny_prior, tiny_scan, tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PerImageMap, PriorRange
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.operators import Inpainting
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import GaussianNoise, NoNoise


def test_noise_of_an_image_depends_on_seed_and_key_alone():
    scan, x = tiny_scan(), tiny_slices(4)
    y = scan.simulate(x, seed=3, image_ids=list("abcd"))
    torch.testing.assert_close(scan.simulate(x[2:3], seed=3, image_ids=["c"]), y[2:3], rtol=0, atol=0)
    torch.testing.assert_close(scan.simulate(x[[3, 0]], seed=3, image_ids=["d", "a"]), y[[3, 0]], rtol=0, atol=0)
    assert not torch.equal(scan.simulate(x, seed=4, image_ids=list("abcd")), y)


def test_simulation_on_a_finer_grid_is_another_discretisation_of_the_same_scan():
    scan = tiny_scan(photons=1e12)
    x = tiny_slices(2)
    coarse, fine = scan.simulate(x), scan.simulate(x, refine=2)
    assert coarse.shape == fine.shape
    difference = (coarse - fine).norm() / coarse.norm()
    assert 1e-3 < difference < 0.05


def test_score_is_the_gradient_of_the_log_likelihood_in_the_prior_range():
    scan = tiny_scan(photons=1e4)
    x0 = PriorRange().to_prior(HounsfieldScale().to_hu(tiny_slices(2))).double().requires_grad_()
    likelihood = scan.likelihood(scan.simulate(tiny_slices(2), seed=1).double(), PriorRange())
    (expected,) = torch.autograd.grad(likelihood.log_prob(x0 * 0.9).sum(), x0)
    torch.testing.assert_close(0.9 * likelihood.score(x0.detach() * 0.9), expected, rtol=1e-5, atol=1e-5)


def guide(likelihood, x0, kind):
    return guidance_for(kind).of_initial(likelihood, x0, 1.0)


def test_guidance_vanishes_at_the_truth_and_points_back_to_it():
    scan = tiny_scan(photons=1e9)
    mu = tiny_slices(1)
    truth = PriorRange().to_prior(HounsfieldScale().to_hu(mu))
    likelihood = scan.likelihood(scan.simulate(mu), PriorRange())
    bump = torch.zeros_like(truth)
    bump[..., 12:20, 12:20] = 0.2
    for kind in ("adjoint", "fbp", "score"):
        at_truth, off = guide(likelihood, truth, kind), guide(likelihood, truth + bump, kind)
        assert at_truth.norm() < 0.05 * off.norm()
        assert torch.nn.functional.cosine_similarity(off.flatten(), -bump.flatten(), dim=0) > 0.5
    inside = guide(likelihood, truth + bump, "fbp")[..., 14:18, 14:18].mean()
    assert float(inside) == pytest.approx(-0.2, abs=0.06)  # FBP guidance is in the units of the image


def test_pixel_units_give_the_likelihood_of_millimetres():
    """A scan with a pixel of 1 mm and attenuation per pixel is the scan in mm."""
    geometry = ParallelGeometry(image_shape=(32, 32), pixel_mm=1.0, views=12, detectors=48, detector_mm=1.0)
    unit = Measurement(RayTransform(geometry), NoNoise(), units=HounsfieldScale())
    real = tiny_scan(pixel_mm=3.0)
    x0 = PriorRange().to_prior(HounsfieldScale().to_hu(tiny_slices(2)))
    affine = unit.scale_to(PriorRange())
    width = torch.full((2, 1, 1, 1), 3.0)
    pixels = Likelihood(unit, torch.zeros(2, 1, 12, 48), PerImageMap(width * affine.scale, width * affine.offset))
    millimetres = real.likelihood(torch.zeros(2, 1, 12, 48), PriorRange())
    torch.testing.assert_close(pixels.forward(x0), millimetres.forward(x0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guide(pixels, x0, "fbp"), guide(millimetres, x0, "fbp"), rtol=1e-4, atol=1e-4)


def test_parts_and_repetitions_keep_images_together():
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(3))
    likelihood = scan.likelihood(y, PriorRange()).repeat(2)
    assert torch.equal(likelihood.y, y[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(likelihood[2:4].y, y[[1, 1]])


def test_a_mask_for_each_image_stays_with_its_image():
    masks = (torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    whole, x = Measurement(Inpainting((2, 8, 8), masks), GaussianNoise(0.1)), torch.rand(3, 2, 8, 8)
    y = whole.simulate(x, seed=1, image_ids="abc")
    for i, name in enumerate("abc"):
        alone = Measurement(Inpainting((2, 8, 8), masks[i]), GaussianNoise(0.1))
        assert torch.equal(alone.simulate(x[i : i + 1], seed=1, image_ids=[name]), y[i : i + 1])
        assert torch.equal(whole[i : i + 1].simulate(x[i : i + 1], seed=1, image_ids=[name]), y[i : i + 1])
    chunk = whole.likelihood(y).repeat(2)[1:4]  # images 0, 1, 1
    x0 = x[[0, 1, 1]]
    torch.testing.assert_close(chunk.residual(x0), y[[0, 1, 1]] - masks[[0, 1, 1]] * x0)
    torch.testing.assert_close(chunk.pseudo_inverse(), masks[[0, 1, 1]] * y[[0, 1, 1]])
    chosen = whole.likelihood(y).select_images(lambda values: values[[2, 0]])
    torch.testing.assert_close(chosen.forward(x[[2, 0]]), masks[[2, 0]] * x[[2, 0]])
    with pytest.raises(ValueError, match="parameters for 3 images, and the data are of 2"):
        whole.check(y[:2])


def test_a_measurement_without_parameters_of_images_is_that_of_any_part():
    scan = tiny_scan()
    assert scan[1:2] is scan and scan.repeat(3) is scan


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_are_not_finite_are_refused(value):
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    y[0, 0, 3, 4] = value
    with pytest.raises(ValueError, match="1 NaN or infinite values"):
        scan.likelihood(y, PriorRange())
    x = tiny_slices(1)
    x[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        scan.simulate(x)


def test_data_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, C, 12, 48\), got \(1, 1, 11, 48\)"):
        tiny_scan().likelihood(torch.zeros(1, 1, 11, 48), PriorRange())


def test_units_must_match_those_of_the_prior():
    scan = tiny_scan()
    with pytest.raises(ValueError, match="both or none need one"):
        scan.likelihood(torch.zeros(1, 1, 12, 48), None)
    plain = Measurement(scan.operator, GaussianNoise(0.1))
    with pytest.raises(ValueError, match="both or none need one"):
        plain.likelihood(torch.zeros(1, 1, 12, 48), tiny_prior().value_range)


def test_description_names_scan_noise_and_units():
    described = tiny_scan().describe()
    assert described["noise"]["photons"] == 1e5
    assert described["geometry"]["views"] == 12 or len(described["geometry"]["angles"]) == 12
    assert described["units"]["mu_water_per_mm"] == 0.02


@pytest.mark.parametrize("values", [torch.ones(1, 1, 12, 48, dtype=torch.int16), [1.0], None])
def test_data_and_images_that_are_not_floating_point_are_refused(values):
    got = r"torch\.int16" if isinstance(values, torch.Tensor) else type(values).__name__
    with pytest.raises(TypeError, match=rf"the data must be a floating-point .* got {got}; convert"):
        tiny_scan().check(values)
    with pytest.raises(TypeError, match=rf"the images must be a floating-point .* got {got}; convert"):
        tiny_scan().simulate(values)


def test_empty_batches_are_refused():
    with pytest.raises(ValueError, match=r"the data are an empty batch, of shape \(0, 1, 12, 48\)"):
        tiny_scan().check(torch.zeros(0, 1, 12, 48))
    with pytest.raises(ValueError, match=r"the images are an empty batch, of shape \(0, 1, 32, 32\)"):
        tiny_scan().simulate(torch.zeros(0, 1, 32, 32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    scan, x = tiny_scan(), tiny_slices(2).to(dtype)
    y = scan.simulate(x, seed=1)
    assert y.dtype == torch.float32
    assert torch.equal(y, scan.simulate(x.float(), seed=1))
    assert torch.equal(scan.simulate(x, seed=1, refine=2), scan.simulate(x.float(), seed=1, refine=2))
    assert scan.check(y.to(dtype)).dtype == torch.float32
    likelihood = scan.likelihood(y.to(dtype), PriorRange())
    assert likelihood.y.dtype == likelihood.weights.dtype == torch.float32


def test_checking_copies_nothing():
    y = torch.zeros(1, 1, 12, 48, dtype=torch.float64)
    assert tiny_scan().check(y) is y


def test_subclasses_and_inference_mode_simulate_the_same_data():
    scan, x = tiny_scan(), tiny_slices(2)
    expected = scan.simulate(x, seed=1, refine=2)
    with torch.inference_mode():
        assert torch.equal(scan.simulate(x, seed=1, refine=2), expected)
    theirs = scan.simulate(x.as_subclass(StrictTensor), seed=1, refine=2)
    assert torch.equal(theirs.as_subclass(torch.Tensor), expected)
