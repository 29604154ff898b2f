"""Every method on every kind of image: a sane result, or one refusal before any network is evaluated."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from contract import COUNT, PROBLEMS, build, documented

from deft_ct.methods.registry import methods
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.evaluations import count_evaluations

DOCUMENTED = documented((Path(__file__).parents[2] / "docs/contract.md").read_text())
STALE = "docs/contract.md says something else: make it anew by the command that stands in it"
MUST_WORK = {
    *((name, problem) for name in methods() if name not in ("amortised", "ddrm", "replacement")
      for problem in ("CT parallel", "CT fan")),
    *((name, problem) for name in ("dps", "reconstruction_guidance", "daps", "reddiff", "deft", "unconditional")
      for problem in PROBLEMS),
    *((name, problem) for name in ("ddnm", "dds", "diffpir", "pigdm", "mcg", "cgls", "sirt", "fbp")
      for problem in ("inpainting", "inpainting, a mask for each image", "super-resolution", "points")),
    *(("ddrm", problem)
      for problem in ("inpainting", "inpainting, a mask for each image", "super-resolution", "points")),
}  # fmt: skip


@pytest.mark.parametrize("problem_name", PROBLEMS)
@pytest.mark.parametrize("name", methods())
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights diverge, and the tiny scan lies outside of training
def test_a_sane_result_or_one_refusal(name: str, problem_name: str) -> None:
    problem = PROBLEMS[problem_name]
    measurement, images = problem.measurement(), problem.images(COUNT)
    y = measurement.simulate(images, seed=4)
    method = build(name, problem)
    try:
        with count_evaluations() as count:
            whole = method.reconstruct(y, measurement, seed=7, image_ids="abc")
    except UnsupportedError as refusal:
        assert count.total == 0
        assert (name, problem_name) not in MUST_WORK, str(refusal)
        assert name in str(refusal) and "\n" not in str(refusal)
        assert DOCUMENTED.get((name, problem_name)) == str(refusal), STALE
        return
    assert DOCUMENTED.get((name, problem_name)) == "ok", STALE
    assert whole.mean.shape == images.shape and bool(torch.isfinite(whole.mean).all())
    assert whole.provenance["method"] == name
    json.dumps(whole.provenance)
    scale = float(whole.mean.abs().max())
    for i, image_id in enumerate("abc"):
        single = (
            build(name, problem).reconstruct(y[i : i + 1], measurement[i : i + 1], seed=7, image_ids=[image_id]).mean
        )
        assert float((single[0] - whole.mean[i]).abs().max()) < 1e-4 * scale


@pytest.mark.parametrize("name", methods())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_chunks_of_several_samples_keep_the_mask_of_each_image(name: str) -> None:
    problem = PROBLEMS["inpainting, a mask for each image"]
    measurement = problem.measurement()
    y = measurement.simulate(problem.images(COUNT), seed=4)
    try:
        whole = build(name, problem).reconstruct(y, measurement, seed=7, num_samples=3, image_ids="abc")
    except UnsupportedError:
        return  # the test above holds which ones may
    last = build(name, problem).reconstruct(y[2:], measurement[2:], seed=7, num_samples=3, image_ids="c")
    scale = float(whole.mean.abs().max())
    assert float((last.mean[0] - whole.mean[2]).abs().max()) < 1e-4 * scale
    if whole.samples is not None:
        assert last.samples is not None
        assert float((last.samples[0] - whole.samples[2]).abs().max()) < 1e-4 * float(whole.samples.abs().max())


def test_a_refusal_is_a_value_error_that_names_the_operator() -> None:
    problem = PROBLEMS["HDR"]
    measurement = problem.measurement()
    y = measurement.simulate(problem.images(1))
    with warnings.catch_warnings(), pytest.raises(ValueError, match="cgls needs a linear operator, HDR is not"):
        build("cgls", problem).reconstruct(y, measurement)
