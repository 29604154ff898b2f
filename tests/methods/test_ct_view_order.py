"""No method depends on the order in which the views were taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import PROBLEMS, build

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import methods
from deft_ct.methods.supervised import TrainedReconstructor
from deft_ct.operators.ct import RayTransform
from deft_ct.reconstructor import Reconstructor, UnsupportedError


def awake(method: Reconstructor) -> Reconstructor:
    """The method with random weights where they start at zero, so that every input of its network matters."""
    if isinstance(method, TrainedReconstructor):
        torch.manual_seed(3)
        for parameter in method.model.parameters():
            if parameter.abs().max() < 0.01:
                parameter.normal_(0, 1.0)
    return method


@pytest.mark.parametrize("problem_name", ["CT parallel", "CT fan"])
@pytest.mark.parametrize("name", methods())
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights diverge, and the tiny scan lies outside of training
@torch.no_grad()
def test_shuffled_views_give_the_same_image(name: str, problem_name: str) -> None:
    problem = PROBLEMS[problem_name]
    measurement = problem.measurement()
    geometry = measurement.operator.geometry
    y = measurement.simulate(problem.images(2), seed=4)
    turn = np.random.default_rng(1).permutation(len(geometry.angle_array))
    other = Measurement(
        RayTransform(geometry.replace(angles=geometry.angle_array[turn])), measurement.noise, units=measurement.units
    )
    try:
        expected = awake(build(name, problem)).reconstruct(y, measurement, seed=7).mean
    except UnsupportedError:
        return
    found = awake(build(name, problem)).reconstruct(y[..., turn, :], other, seed=7).mean
    assert float((found - expected).abs().max()) < 1e-2 * float(expected.abs().max())  # DAPS amplifies rounding
