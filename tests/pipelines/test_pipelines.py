"""Reconstruction inside of MONAI, TorchIO and deepinv: the numbers of our own call, in the place they came from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from deft_ct.ct.volume import Volume
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import GaussianBlur, GaussianNoise
from deft_ct.operators.findings import DataWarning
from deft_ct.pipelines.deepinv import DeepinvReconstructor
from deft_ct.workflows.reconstruct_series import SparseView
from deft_ct.workflows.reconstruct_volume import array_of_volume, reconstruct_volume, volume_of_array

SETTINGS = SparseView(method="fbp", views=40, samples=1, photons=0, size=24)
AFFINE = np.array([[-1.5, 0, 0, 20], [0, -1.5, 0, -30], [0, 0, 3, 100], [0, 0, 0, 1.0]])


def block() -> Tensor:
    """``(1, 20, 24, 3)``: water in air, 8 x 6 pixels from (4, 10) on; one slice is empty of it."""
    hu = torch.full((1, 20, 24, 3), -1000.0)
    hu[:, 4:12, 10:16, :2] = 0.0
    return hu


def expected() -> np.ndarray:
    return array_of_volume(reconstruct_volume(volume_of_array(block(), AFFINE), SETTINGS).mean.hu).numpy()


def test_a_volume_keeps_its_place_and_shape() -> None:
    volume = volume_of_array(block(), AFFINE)
    np.testing.assert_allclose(volume.ras_affine, AFFINE)
    assert volume.hu.shape == (3, 24, 20) and float(volume.hu[0, 10, 4]) == 0.0
    torch.testing.assert_close(array_of_volume(volume.hu), block())
    found = reconstruct_volume(volume, SETTINGS)
    assert found.mean.hu.shape == (3, 24, 20) and found.std_hu is None
    np.testing.assert_allclose(found.mean.affine, volume.affine)
    assert abs(found.mean.hu[:2, 12:14, 6:10].mean()) < 60 and found.mean.hu[2].max() < -900
    assert found.provenance["method"] == "fbp" and found.provenance["images"] == 3
    error = found.mean.hu - volume.hu
    np.testing.assert_allclose(found.metrics.psnr, 10 * np.log10(2000**2 / (error**2).mean((1, 2))), rtol=1e-3)


@pytest.mark.filterwarnings("ignore:unlike the training images", "ignore:data explained worse")  # a square
def test_a_method_with_samples_has_a_spread_and_its_own_noise() -> None:
    settings = SparseView(method="deft", views=20, samples=2, size=32, options={"deft": {"steps": 2}})
    hu = torch.full((1, 32, 32, 1), -1000.0)
    hu[:, 8:24, 8:24] = 40.0
    found = reconstruct_volume(volume_of_array(hu, np.eye(4)), settings)
    again = reconstruct_volume(volume_of_array(hu, np.eye(4)), settings)
    assert found.std_hu is not None and found.std_hu.shape == (1, 32, 32)
    assert found.std_hu.min() >= 0 and 0 < found.std_hu.mean() < 500
    np.testing.assert_array_equal(found.mean.hu, again.mean.hu)


def test_volumes_that_would_change_are_refused() -> None:
    with pytest.raises(ValueError, match="square pixels"):
        reconstruct_volume(volume_of_array(block(), np.diag([1.0, 2.0, 3.0, 1.0])), SETTINGS)
    with pytest.raises(ValueError, match="at most 16 along a side"):
        reconstruct_volume(volume_of_array(block(), AFFINE), SparseView(method="fbp", size=16))
    with pytest.raises(ValueError, match="air"):
        reconstruct_volume(Volume.from_spacing(np.full((1, 8, 8), -1000.0), pixel_mm=1, z_mm=1), SETTINGS)
    with pytest.raises(ValueError, match=r"expected a CT volume \(1, I, J, K\), got \(2, 3\)"):
        volume_of_array(torch.zeros(2, 3), np.eye(4))


def test_monai() -> None:
    data = pytest.importorskip("monai.data.meta_tensor", reason="the extra 'monai' is not installed")
    from deft_ct.pipelines.monai import SparseViewCT, SparseViewCTd

    image = data.MetaTensor(block(), affine=torch.from_numpy(AFFINE), meta={"filename_or_obj": "a.nii.gz"})
    found = SparseViewCT(SETTINGS)(image)
    np.testing.assert_array_equal(found.numpy(), expected())
    np.testing.assert_allclose(np.asarray(found.affine), AFFINE)
    assert found.meta["filename_or_obj"] == "a.nii.gz" and found.meta["deft_ct"]["method"] == "fbp"
    sample = {"image": image, "label": torch.ones(1), "name": "a"}
    out = SparseViewCTd(["image", "second"], SETTINGS, allow_missing_keys=True)(sample)
    np.testing.assert_array_equal(out["image"].numpy(), expected())
    assert out["name"] == "a" and torch.equal(sample["image"], image)
    with pytest.raises(ValueError, match="no posterior standard deviation"):
        SparseViewCTd("image", SETTINGS, std_suffix="_std")(sample)
    with pytest.raises(KeyError):
        SparseViewCTd("second", SETTINGS)(sample)
    plain = SparseViewCT(SETTINGS)(block())  # voxels of 1 mm
    assert plain.shape == image.shape and not np.array_equal(plain.numpy(), expected())


def test_torchio() -> None:
    tio = pytest.importorskip("torchio", reason="the extra 'torchio' is not installed")
    from deft_ct.pipelines.torchio import SparseViewImages

    label = tio.LabelMap(tensor=torch.ones(1, 20, 24, 3, dtype=torch.int32), affine=AFFINE)
    subject = tio.Subject(ct=tio.ScalarImage(tensor=block(), affine=AFFINE), label=label)
    out = SparseViewImages(SETTINGS)(subject)
    np.testing.assert_array_equal(out["ct"].data.numpy(), expected())
    np.testing.assert_allclose(out["ct"].affine, AFFINE)
    assert out["ct"]["deft_ct"]["method"] == "fbp" and torch.equal(out["label"].data, label.data)
    assert torch.equal(subject["ct"].data, block())


class Physics:
    """A linear physics in deepinv's form."""

    def __init__(self, sigma: float | None) -> None:
        self.blur = GaussianBlur((3, 12, 12), 5, 1.0)
        if sigma is not None:
            self.noise_model = SimpleNamespace(sigma=torch.tensor(sigma))

    def A(self, x: Tensor) -> Tensor:
        return self.blur(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.blur.adjoint(y)


def test_deepinv_calls_with_data_and_physics() -> None:
    physics = Physics(0.05)
    truth = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    y = Measurement(physics.blur, GaussianNoise(0.05)).simulate(truth)
    method = load_reconstructor("tikhonov")
    own = method.reconstruct(y, Measurement(physics.blur, GaussianNoise(0.05))).mean
    torch.testing.assert_close(DeepinvReconstructor(method)(y, physics), own, rtol=1e-4, atol=1e-5)
    known = DeepinvReconstructor(method, Measurement(physics.blur, GaussianNoise(0.5)))
    assert not torch.allclose(known(y), own, atol=1e-3)
    with pytest.warns(DataWarning, match="data not explained"):  # that have no noise, as it is told
        clean = DeepinvReconstructor(method)(y, Physics(None))
    assert not torch.allclose(clean, own, atol=1e-3)
    assert isinstance(known, torch.nn.Module)
    with pytest.raises(ValueError, match="linear physics"):
        DeepinvReconstructor(method)(y, SimpleNamespace())
    physics.noise_model.sigma = torch.tensor([0.1, 0.2])
    with pytest.raises(ValueError, match="one level of noise"):
        DeepinvReconstructor(method)(y, physics)
