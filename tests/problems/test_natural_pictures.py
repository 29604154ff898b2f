"""Data of every task as a picture."""

from __future__ import annotations

import pytest
import torch

from deft_ct.operators import Inpainting
from deft_ct.problems.natural_by_name import TASKS, parse_task
from deft_ct.problems.natural_pictures import data_pictures


@pytest.mark.parametrize("name", [name for name in TASKS])
@pytest.mark.parametrize("channels", [1, 3])
def test_data_of_every_task_can_be_looked_at(name: str, channels: int) -> None:
    operator, noise = parse_task(name).build((channels, 16, 16))
    x = torch.linspace(-1, 1, 2 * channels * 256).reshape(2, channels, 16, 16)
    y = noise.sample(operator(x), torch.Generator().manual_seed(0))
    pictures = data_pictures(y, operator)
    assert len(pictures) == 2 and pictures.ndim == 4 and pictures.shape[1] in (1, channels)
    assert float(pictures.abs().max()) < 10 and float(pictures.std()) > 0
    if operator.range_shape == operator.domain_shape:
        assert torch.equal(pictures, y)


def test_other_channels_are_no_picture() -> None:
    operator = Inpainting((2, 4, 4), torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="1 or 3 channels, and the images here 2"):
        data_pictures(torch.ones(1, 2, 4, 4), operator)
