"""Limits of what is usual: the two numbers, the limits on disk, and the warnings of DEFT."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.diffusion import Prior
from deft_ct.measurement.residual import noise_residuals, relative_residuals
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.deft.familiarity import (
    FILE,
    MISFIT,
    NOISE,
    UNFAMILIAR,
    Familiarity,
    prior_fits,
    unexplained_residuals,
)
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.operators.findings import DataWarning
from deft_ct.runtime.read_error import ReadError

LIMITS = Familiarity(fit=(0.02, 0.05), residual=0.01)


def names(fits: list[float | None], residuals: list[float]) -> list[str]:
    return [finding.name for finding in LIMITS.findings(fits, residuals)]


def test_more_than_half_of_the_images_have_to_be_unusual() -> None:
    assert names([0.03], [0.005]) == [] and names([0.02, 0.05], [0.01, 0.0]) == []
    assert names([0.051], [0.0]) == names([0.019], [0.0]) == [UNFAMILIAR]
    assert names([0.03], [0.011]) == [MISFIT] and names([0.06], [0.02]) == [UNFAMILIAR, MISFIT]
    assert names([0.06, 0.03], [0.02, 0.0]) == [] and names([0.06, 0.01, 0.03], [0.02, 0.02, 0.0]) != []
    assert names([None], [0.0]) == [] and names([None, None, 0.06], [0.0] * 3) == []
    (finding,) = LIMITS.findings([0.03, 0.06, 0.004], [0.0] * 3)
    assert "images at [1, 2]" in finding.text and "by 0.004 of its range" in finding.text


def test_the_fit_is_the_median_change_inside_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = tiny_prior()
    seen: list[torch.Tensor] = []

    def denoise(self: Prior, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, spread = self.schedule.coefficients(torch.as_tensor(t), x_t)
        assert float(spread / signal) == pytest.approx(NOISE, rel=0.02)
        seen.append(x_t)
        change = torch.where(image > -0.5, 0.25, 9.0)
        change[..., :16] *= -1
        return image + change

    monkeypatch.setattr(Prior, "denoise", denoise)
    image = torch.full((1, 1, 32, 32), -1.0)
    image[..., 8:24, 8:24] = 0.1
    found = prior_fits(prior, image, ["a"], seed=3)
    assert found == [pytest.approx(0.25)]
    assert prior_fits(prior, torch.full_like(image, -1.0), ["air"]) == [None]
    prior_fits(prior, image, ["a"], seed=3)
    prior_fits(prior, image, ["b"], seed=3)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    halved = prior_fits(prior, image.repeat_interleave(2, -1).repeat_interleave(2, -2), ["a"], seed=3)
    assert halved == found and torch.equal(seen[3], seen[0])


def test_an_image_does_not_depend_on_the_batch() -> None:
    prior, images = tiny_prior(), tiny_slices(3)
    x = 2 * images / images.max() - 1
    together = prior_fits(prior, x, ["a", "b", "c"])
    assert together[1] == prior_fits(prior, x[1:2], ["b"])[0] and len({*together}) == 3


def test_the_unexplained_part_is_what_the_noise_leaves() -> None:
    scan, images = tiny_scan(), tiny_slices(2)
    y = scan.simulate(images, seed=0)
    wrong = 1.2 * images
    r, n = relative_residuals(y, wrong, scan), noise_residuals(y, scan)
    assert unexplained_residuals(y, wrong, scan) == pytest.approx((r**2 - n**2).sqrt().tolist())
    assert float(r.min()) > float(n.max()) > 0
    assert unexplained_residuals(y, images, scan)[0] < 0.5 * float(n[0])


def solver_with(limits: Familiarity, folder: Path) -> DEFT:
    prior = tiny_prior()
    save_htransform(tiny_htransform(prior), folder)
    own = replace(limits, prior_sha256=prior.content_hash(), htransform_sha256=load_htransform(folder).content_hash())
    own.write(folder / FILE)
    return DEFT(prior, load_htransform(folder))


@pytest.mark.parametrize(
    ("fit", "residual", "expected"),
    [
        ((0.0, 9.0), 9.0, []), ((0.0, 1e-6), 9.0, [UNFAMILIAR]), ((8.0, 9.0), 9.0, [UNFAMILIAR]),
        ((0.0, 9.0), 1e-6, [MISFIT]),
    ],
)  # fmt: skip
def test_deft_warns_and_records(fit: tuple[float, float], residual: float, expected: list[str], tmp_path: Path) -> None:
    solver = solver_with(Familiarity(fit=fit, residual=residual), tmp_path / "h")
    scan, images = tiny_scan(), tiny_slices(2)
    y = scan.simulate(images, seed=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = solver.reconstruct(y, scan)
    own = {UNFAMILIAR, MISFIT}
    assert [one["name"] for one in result.provenance["warnings"] if one["name"] in own] == expected
    told = [str(one.message).partition(":")[0] for one in caught if issubclass(one.category, DataWarning)]
    assert [name for name in told if name in own] == expected
    images = scan.scale_to(solver.prior.value_range).inverse(result.mean)
    assert result.provenance["familiarity"] == {
        "fits": prior_fits(solver.prior, images, [0, 1]),
        "unexplained_residuals": unexplained_residuals(y, result.mean, scan),
    }


def test_limits_of_other_weights_are_not_used(tmp_path: Path) -> None:
    solver = solver_with(LIMITS, tmp_path / "h")
    other = replace(LIMITS, fit=(0.0, 1e-6), prior_sha256=solver.prior.content_hash(), htransform_sha256="another")
    other.write(tmp_path / "h" / FILE)
    solver = DEFT(solver.prior, load_htransform(tmp_path / "h"))
    scan = tiny_scan()
    result = solver.reconstruct(scan.simulate(tiny_slices(1), seed=0), scan)
    assert "familiarity" not in result.provenance
    assert UNFAMILIAR not in {one["name"] for one in result.provenance["warnings"]}


def test_limits_on_disk(tmp_path: Path) -> None:
    LIMITS.write(tmp_path / FILE)
    assert Familiarity.read(tmp_path / FILE) == LIMITS
    for values in ({"fit": [0.05, 0.02]}, {"residual": 0.0}, {"fit": [-0.1, 0.2]}, {"fit": "wide"}):
        (tmp_path / FILE).write_text(json.dumps(asdict(LIMITS) | values))
        with pytest.raises(ReadError, match=r"familiarity\.json"):
            Familiarity.read(tmp_path / FILE)
    with pytest.raises(FileNotFoundError):
        Familiarity.read(tmp_path / "none.json")


def test_saving_again_keeps_the_limits_out_of_the_card(tmp_path: Path) -> None:
    solver = solver_with(LIMITS, tmp_path / "h")
    save_htransform(solver.htransform, tmp_path / "again")
    assert "familiarity" not in json.loads((tmp_path / "again" / "htransform.json").read_text())["card"]
    save_htransform(solver.htransform, tmp_path / "h")
    assert (tmp_path / "h" / FILE).is_file()
