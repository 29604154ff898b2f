"""One table for every registered method: batches, seeds, precision, devices, units, records, bad data."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch
from methods import blurred, case, image_prior
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.guided.sampling import PosteriorSampler
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.operators import HDR, Blur, GaussianNoise, PhaseRetrieval, PoissonNoise
from deft_ct.reconstructor import PriorReconstructor
from deft_ct.runtime.search_space import Choice

pytestmark = pytest.mark.filterwarnings("ignore:data not explained")  # priors of random weights

# Supervised methods need a trained model of their own; tests/supervised holds them to the same.
NAMES = [name for name in methods() if not method_class(name).__module__.startswith("deft_ct.methods.supervised")]
SAMPLERS = [name for name in NAMES if issubclass(method_class(name), PosteriorSampler)]
ZERO_SHOT = [name for name in SAMPLERS if name != "deft"]
NONLINEAR = [name for name in ZERO_SHOT if method_class(name).needs == "any"]
LINEAR = [name for name in ZERO_SHOT if method_class(name).needs in ("linear", "svd")]
STARTING = [name for name in ZERO_SHOT if hasattr(method_class(name).config_type, "start")]
WEIGHTED = [name for name in ZERO_SHOT if hasattr(method_class(name).config_type, "weighted")]


def identity_prior() -> Prior:
    """A CT prior that takes every image for a clean one."""

    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x

    return Prior(Same(), Schedule(), prediction="sample", value_range=PriorRange(), image_shape=(1, 32, 32))


def test_the_table_holds_the_methods_of_the_literature() -> None:
    expected = {"daps", "ddnm", "ddrm", "dds", "deft", "diffpir", "dps", "mcg", "pigdm", "reddiff", "unconditional"}
    assert expected <= set(SAMPLERS)
    assert {"dps", "daps", "reddiff"} <= set(NONLINEAR)


@pytest.mark.parametrize("name", NAMES)
def test_batch_of_n_is_n_batches_of_one(name: str) -> None:
    together, alone = case(name, batch_size=4), case(name, batch_size=1)
    y = together.data()
    whole = together.method.reconstruct(y, together.measurement, num_samples=2, seed=7, image_ids="abc")
    for i, key in enumerate("abc"):
        single = alone.method.reconstruct(y[i : i + 1], alone.measurement, num_samples=2, seed=7, image_ids=[key])
        scale = whole.mean[i].abs().max()
        torch.testing.assert_close(single.mean[0] / scale, whole.mean[i] / scale, rtol=0, atol=2e-5)
        if whole.samples is not None:
            assert single.samples is not None
            torch.testing.assert_close(single.samples[0] / scale, whole.samples[i] / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["daps", "ddnm", "ddrm", "diffpir", "pigdm"])
def test_the_noise_level_is_that_of_each_sample(name: str) -> None:
    """Noise relative to images of very different brightness: a level shared by the batch would show."""
    blur = Measurement(blurred().operator, GaussianNoise(0.2, relative=True))
    y = blur.simulate(torch.cat([tiny_slices(1) * 30, tiny_slices(1) * 300]))
    few = {"weighted": False} if name in WEIGHTED else {}
    method = load_reconstructor(name, prior=image_prior(), steps=3, **few)
    whole = method.reconstruct(y, blur, image_ids="ab").mean
    single = method.reconstruct(y[:1], blur, image_ids="a").mean
    torch.testing.assert_close(single[0], whole[0], rtol=0, atol=1e-4 * float(whole[0].abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_depends_on_the_seed_and_not_on_the_global_one(name: str) -> None:
    made = case(name)
    y = made.data()
    torch.manual_seed(1)
    first = made.method.reconstruct(y, made.measurement, seed=5)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    again = made.method.reconstruct(y, made.measurement, seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.mean, again.mean)
    if name in SAMPLERS:
        assert not torch.equal(first.mean, made.method.reconstruct(y, made.measurement, seed=6).mean)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_record_and_inputs_left_alone(name: str) -> None:
    made = case(name)
    y = made.data()
    before = y.clone()
    result = made.method.reconstruct(y, made.measurement, num_samples=3)
    assert torch.equal(y, before)
    assert result.mean.shape == made.images.shape and result.mean.dtype == torch.float32
    assert not result.mean.requires_grad
    assert bool(torch.isfinite(result.mean).all())
    record = result.provenance
    json.dumps(record)
    assert record["method"] == name
    assert record["config"] == dataclasses.asdict(made.method.config_for(made.measurement))
    assert record["data_residual"] > 0
    if name in SAMPLERS:
        assert result.samples is not None and result.samples.shape == (3, 3, *made.images.shape[1:])
        assert result.std is not None and bool((result.std > 0).all())
        direct = made.method.config.draws if getattr(made.method.config, "estimate", None) == "mean" else 0
        chosen = made.measurement.units and made.measurement.units.summary(result.samples)
        if chosen is not None:
            assert torch.equal(result.mean, result.samples[torch.arange(3), chosen.chosen])
        elif not direct:
            torch.testing.assert_close(result.mean, result.samples.mean(1))
        per_step = 2 if name == "daps" else 1
        assert record["network_evaluations_per_image"] == 3 * 3 * per_step + direct
        assert isinstance(made.method, PriorReconstructor)
        assert record["prior_sha256"] == made.method.prior.content_hash()


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_stays_double_and_agrees(name: str) -> None:
    made = case(name)
    single = made.method.reconstruct(made.data(), made.measurement).mean
    double = made.method.reconstruct(made.data().double(), made.measurement).mean
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float() / single.abs().max(), single / single.abs().max(), rtol=0, atol=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    made = case(name)
    y = made.data()
    here = made.method.reconstruct(y, made.measurement).mean
    if isinstance(made.method, PriorReconstructor):
        made.method.prior.to("cuda")
    if name == "deft":
        made.method.htransform.to("cuda")
    there = made.method.reconstruct(y.cuda(), made.measurement.to("cuda")).mean
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu() / here.abs().max(), here / here.abs().max(), rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_bad_data_are_refused_before_any_work(name: str) -> None:
    made = case(name)
    y = made.data()
    y[0, ..., 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        made.method.reconstruct(y, made.measurement)
    with pytest.raises(ValueError, match="num_samples"):
        made.method.reconstruct(made.data(), made.measurement, num_samples=0 if made.method.needs_samples else -1)
    if isinstance(made.method, PriorReconstructor):
        assert made.method.prior.evaluations == 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_settings_out_of_range_name_the_setting(name: str) -> None:
    config_type = method_class(name).config_type
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    bad = {"steps": 0, "batch_size": 0, "eta": 1.5, "zeta": -1.0, "cg_iterations": 0, "gamma": 0.0, "strength": 0.0,
           "learning_rate": -1.0, "data_std": 0.0, "eta_b": 2.0, "norm": "l1", "inner": "magic", "langevin_step": 2.0,
           "sampler": "magic", "ode_steps": 0, "radius": 0.0, "start": 0.0, "start_from": "magic"}  # fmt: skip
    for field in fields.keys() & bad.keys():
        with pytest.raises(ValueError, match=field):
            config_type(**{field: bad[field]})
    with pytest.raises(ValueError, match=f"{name} has no option stepz; its options are: "):
        load_reconstructor(name, prior=tiny_prior(), stepz=3)


@pytest.mark.parametrize("name", methods())
def test_what_is_searched_holds_the_default_and_builds(name: str) -> None:
    """Every method with parameters says which of them to tune; each corner of the ranges is a configuration."""
    cls = method_class(name)
    fields = {field.name: field.default for field in dataclasses.fields(cls.config_type)}
    # These give one answer, train for each measurement, or do not use the data.
    unsearched = {"fbp_unet", "learned_primal_dual", "deft_online", "unconditional"}
    assert (not cls.search_space) == (name in unsearched)
    assert cls.search_space.keys() <= fields.keys() and len(cls.search_space) <= 4
    ends = {}
    for field, where in cls.search_space.items():
        if isinstance(where, Choice):
            assert fields[field] in where.options
            ends[field] = list(where.options)
        else:
            given = fields[field]
            if given is None:  # it depends on the images
                given = getattr(load_reconstructor(name, prior=tiny_prior()).config_for(tiny_scan()), field)
            assert where.low <= given <= where.high
            ends[field] = [int(where.low), int(where.high)] if where.whole else [where.low, where.high]
    for corner in itertools.product(*ends.values()):
        cls.config_type(**dict(zip(ends, corner, strict=True)))


@pytest.mark.parametrize("name", STARTING)
def test_a_late_start_begins_at_the_noised_reconstruction(name: str) -> None:
    """With a walk so late that hardly any noise is added, the answer is the reconstruction that it began at."""
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(2), seed=1)
    weak = {"dps": {"zeta": 1e-6}, "daps": {"radius": 1e-6, "ode_steps": 1}}.get(name, {})
    found = {}
    for start_from in ("fbp", "tv"):
        method = load_reconstructor(name, prior=identity_prior(), steps=4, start=0.002, start_from=start_from, **weak)
        result = method.reconstruct(y, scan, num_samples=2, image_ids="ab")
        assert result.provenance["network_evaluations_per_image"] == 2 * 2  # two samples, two times
        found[start_from] = result.mean
        likelihood = scan.likelihood(y, PriorRange())
        quick = likelihood.to_physical(reference_reconstruction(likelihood, start_from))
        if name in ("dps", "daps"):  # the others go on towards the data
            assert (result.mean - quick).norm() < 0.1 * quick.norm()
    assert not torch.allclose(found["fbp"], found["tv"], rtol=1e-3)
    with pytest.raises(ValueError, match=r"a start below 1 needs data whose mean is linear|needs a linear operator"):
        hdr = Measurement(HDR((1, 32, 32)), GaussianNoise(0.05))
        load_reconstructor(name, prior=image_prior(), start=0.5).reconstruct(torch.zeros(1, 1, 32, 32), hdr)


@pytest.mark.parametrize("name", NONLINEAR)
@pytest.mark.parametrize("operator", [HDR((1, 32, 32)), PhaseRetrieval((1, 32, 32))], ids=["hdr", "phase"])
def test_nonlinear_operators(name: str, operator: torch.nn.Module) -> None:
    measurement = Measurement(operator, GaussianNoise(0.05))
    method = load_reconstructor(name, prior=image_prior(), steps=3)
    result = method.reconstruct(measurement.simulate(tiny_slices(2) * 30 - 0.5), measurement)
    assert bool(torch.isfinite(result.mean).all())


@pytest.mark.parametrize("name", NONLINEAR)
def test_counts_before_the_logarithm(name: str) -> None:
    scan = tiny_scan()
    counts = Measurement(scan.operator, PoissonNoise(photons=1e5, post_log=False), units=scan.units)
    method = load_reconstructor(name, prior=tiny_prior(), steps=3)
    assert bool(torch.isfinite(method.reconstruct(counts.simulate(tiny_slices(2)), counts).mean).all())


@pytest.mark.parametrize("reference", ["fbp", "tv"])
def test_a_head_with_a_reference_refuses_counts_before_the_logarithm(reference: str) -> None:
    """A reconstruction of transmittances as if they were line integrals would be wrong without a word."""
    scan, prior = tiny_scan(), tiny_prior()
    counts = Measurement(scan.operator, PoissonNoise(photons=1e5, post_log=False), units=scan.units)
    method = load_reconstructor("deft", prior=prior, htransform=tiny_htransform(prior, reference=reference), steps=3)
    with pytest.raises(ValueError, match=f"the {reference} reference needs post-log data"):
        method.reconstruct(counts.simulate(tiny_slices(1)), counts)
    assert prior.evaluations == 0


@pytest.mark.parametrize("name", LINEAR)
def test_methods_that_need_linearity_say_so_before_any_work(name: str) -> None:
    prior = image_prior()
    method = load_reconstructor(name, prior=prior, steps=3)
    measurement = Measurement(HDR((1, 32, 32)), GaussianNoise(0.05))
    with pytest.raises(ValueError, match=f"{name} needs a linear operator, HDR is not: use dps, daps or reddiff"):
        method.reconstruct(measurement.simulate(tiny_slices(1) * 30), measurement)
    assert prior.evaluations == 0
    scan = tiny_scan()
    counts = Measurement(scan.operator, PoissonNoise(photons=1e5, post_log=False), units=scan.units)
    ct = load_reconstructor(name, prior=tiny_prior(), steps=3)
    with pytest.raises(ValueError, match="take post-log data"):
        ct.reconstruct(counts.simulate(tiny_slices(1)), counts)


def test_ddrm_on_ct_names_the_methods_that_apply() -> None:
    prior, scan = tiny_prior(), tiny_scan()
    method = load_reconstructor("ddrm", prior=prior)
    with pytest.raises(ValueError, match="RayTransform has no cheap one: use dds, ddnm, diffpir or pigdm"):
        method.reconstruct(scan.simulate(tiny_slices(1)), scan)
    assert prior.evaluations == 0


def test_exact_draws_of_daps_need_a_linear_operator() -> None:
    measurement = Measurement(HDR((1, 32, 32)), GaussianNoise(0.05))
    prior = image_prior()
    method = load_reconstructor("daps", prior=prior, steps=2, inner="cg")
    with pytest.raises(ValueError, match="inner='cg' needs a linear operator"):
        method.reconstruct(measurement.simulate(tiny_slices(1) * 30), measurement)
    assert prior.evaluations == 0


@pytest.mark.parametrize("name", WEIGHTED)
def test_statistical_weights_matter_on_ct_and_not_for_white_noise(name: str) -> None:
    scan, blur = tiny_scan(photons=1e4), blurred()
    ct, image = scan.simulate(tiny_slices(1)), blur.simulate(tiny_slices(1) * 30 - 0.5)
    results = []
    for weighted in (False, True):
        options = {"steps": 3, "weighted": weighted}
        results.append(
            (
                load_reconstructor(name, prior=tiny_prior(), **options).reconstruct(ct, scan).mean,
                load_reconstructor(name, prior=image_prior(), **options).reconstruct(image, blur).mean,
            )
        )
    assert not torch.allclose(results[0][0], results[1][0], rtol=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dds", "ddnm", "diffpir", "pigdm", "daps", "mcg"])
def test_data_consistency_on_ct(name: str) -> None:
    """The answer explains the data far better than a draw of the prior, even with a prior of random weights."""
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    fitted = load_reconstructor(name, prior=tiny_prior(), steps=8).reconstruct(y, scan).provenance["data_residual"]
    blind = load_reconstructor("unconditional", prior=tiny_prior(), steps=8).reconstruct(y, scan)
    assert fitted < 0.2 * blind.provenance["data_residual"]


def test_a_blur_without_decomposition_leaves_ddnm_to_conjugate_gradients() -> None:
    """A blur that reflects at the border has none: DDNM+ falls back, DDRM says what the operator says."""
    kernel = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    measurement = Measurement(Blur((1, 32, 32), kernel / kernel.sum(), boundary="reflect"), GaussianNoise(0.05))
    y = measurement.simulate(tiny_slices(2) * 30 - 0.5)
    result = load_reconstructor("ddnm", prior=image_prior(), steps=3).reconstruct(y, measurement)
    assert bool(torch.isfinite(result.mean).all())
    prior = image_prior()
    with pytest.raises(ValueError, match="only boundary='circular' has a cheap decomposition"):
        load_reconstructor("ddrm", prior=prior, steps=3).reconstruct(y, measurement)
    assert prior.evaluations == 0
