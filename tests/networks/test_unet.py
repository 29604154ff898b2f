import pytest
import torch

from deft_ct.diffusion.diffusers_files import diffusers_config
from deft_ct.networks import UNet, UNetConfig


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(patch=4, channels=(32, 64), attention=(False, False)),
        UNetConfig(patch=2, channels=(32, 32, 64), attention=(False, True, True), layers=2, head_channels=16),
        UNetConfig(patch=1, in_channels=3, out_channels=6, channels=(32,), attention=(True,), norm_groups=16),
        UNetConfig(patch=2, channels=(32, 64), attention=(False, True), norm_groups=8, scale_shift=True),
    ],
)
def test_computes_what_diffusers_computes(config):
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    ours = UNet(config).eval()
    theirs = diffusers.UNet2DModel.from_config(diffusers_config(config, 32)).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, config.in_channels, 32, 32)
    t = torch.tensor([3.0, 700.0])
    with torch.no_grad():
        reference = theirs(torch.pixel_unshuffle(x, config.patch), t).sample
        torch.testing.assert_close(ours(x, t), torch.pixel_shuffle(reference, config.patch), rtol=1e-4, atol=1e-5)


def test_extra_features_enter_where_diffusers_adds_a_class_embedding():
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    ours = UNet(UNetConfig(patch=2, channels=(32, 64), attention=(False, False))).eval()
    values = diffusers_config(ours.config, 32) | {"class_embed_type": "identity"}
    theirs = diffusers.UNet2DModel.from_config(values).eval()
    theirs.load_state_dict(ours.state_dict())
    x, t, extra = torch.randn(2, 1, 32, 32), torch.tensor([3.0, 700.0]), torch.randn(2, ours.embedding_width)
    with torch.no_grad():
        reference = theirs(torch.pixel_unshuffle(x, 2), t, class_labels=extra).sample
        got = ours(x, t, extra)
        torch.testing.assert_close(got, torch.pixel_shuffle(reference, 2), rtol=1e-4, atol=1e-5)
        assert (got - ours(x, t)).abs().max() > 1e-3


def test_scale_and_shift_tell_the_time_whatever_the_groups_are():
    """A shift before a normalisation over single features is lost; one behind it is not."""

    def heard(**changes):
        torch.manual_seed(0)
        network = UNet(UNetConfig(patch=1, channels=(32,), attention=(False,), **changes)).eval()
        x = torch.randn(1, 1, 16, 16)
        with torch.no_grad():
            return (network(x, torch.zeros(1)) - network(x, torch.full((1,), 900.0))).abs().max()

    assert heard(norm_groups=32) < 1e-4  # 32 groups of one feature
    assert heard(norm_groups=32, scale_shift=True) > 1e-2
    assert heard(norm_groups=8) > 1e-2


def test_shapes_without_scale_and_shift_are_described_as_before():
    assert "scale_shift" not in UNetConfig().to_dict()
    told = UNetConfig(scale_shift=True, norm_groups=8)
    assert UNetConfig(**told.to_dict()) == told


def test_refuses_images_that_do_not_fit():
    network = UNet(UNetConfig(patch=4, channels=(32, 32), attention=(False, False)))
    with pytest.raises(ValueError, match="expected an image"):
        network(torch.zeros(1, 2, 32, 32), torch.zeros(1))


@pytest.mark.parametrize("bad", [{"channels": (33,), "attention": (False,)}, {"attention": (False,)}, {"patch": 0}])
def test_refuses_impossible_shapes(bad):
    with pytest.raises(ValueError):
        UNetConfig(**bad)
