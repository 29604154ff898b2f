"""The times at which methods evaluate the prior are those of their grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods import case

from deft_ct.diffusion.schedule import Spacing, time_grid
from deft_ct.methods.guided.config import GridConfig
from deft_ct.methods.guided.sampling import PosteriorSampler
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.reconstructor import PriorReconstructor

pytestmark = pytest.mark.filterwarnings("ignore:data not explained")
NAMES = [
    name
    for name in methods()
    if name != "deft"
    and issubclass(method_class(name), PosteriorSampler)
    and issubclass(method_class(name).config_type, GridConfig)
]


def test_most_methods_have_a_grid() -> None:
    assert {"daps", "ddnm", "ddrm", "dds", "diffpir", "dps", "mcg", "pigdm", "reconstruction_guidance"} <= set(NAMES)
    assert {"reddiff", "replacement", "unconditional"} <= set(NAMES)


@pytest.mark.parametrize("grid", ["uniform", "log_snr"])
@pytest.mark.parametrize("name", NAMES)
def test_the_prior_is_evaluated_at_the_times_of_the_grid(name: str, grid: Spacing) -> None:
    made = case(name)
    assert isinstance(made.method, PriorReconstructor)
    prior = made.method.prior
    options: dict[str, Any] = {"steps": 5, "grid": grid} | ({"ode_steps": 2} if name == "daps" else {})
    seen: list[int] = []
    prior.network.register_forward_pre_hook(lambda _, given: seen.append(int(torch.as_tensor(given[1]).flatten()[0])))
    load_reconstructor(name, prior=prior, **options).reconstruct(made.data()[:1], made.measurement)
    expected = time_grid(prior.schedule, 5, spacing=grid)
    if name == "daps":
        inner = [time_grid(prior.schedule, min(2, t + 1), last=t, spacing=grid) for t in expected]
        expected = [t for levels in inner for t in levels]
    assert seen == expected
