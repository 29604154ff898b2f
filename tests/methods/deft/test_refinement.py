"""The refinement of the reference: training, storage, and its place in a head."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import save_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import (
    HTransform,
    HTransformConfig,
    condition_for,
    load_htransform,
    load_refinement,
    save_htransform,
    save_refinement,
)
from deft_ct.methods.deft import refinement as refinement_module
from deft_ct.methods.deft import train_refinement as train_refinement_module
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.methods.deft.initial_table import TableConfig, draw_batch, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train import HTransformTraining, denoising_loss, train_htransform
from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.runtime.content_key import OtherContentError
from deft_ct.training import TrainingConfig

CONFIG = RefinementConfig(network=replace(NETWORK, norm_groups=16), spread_slopes=SPREAD_SLOPES, scan_features=True)


def _refinement(seed: int = 3) -> Refinement:
    torch.manual_seed(seed)
    made = Refinement(CONFIG)
    with torch.no_grad():
        made.network.conv_out.weight.normal_(0, 0.1)
        made.scan_embedding[-1].weight.normal_(0, 1.0)
    return made.eval().requires_grad_(False)


def test_images_are_refined_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    htransform = tiny_htransform(tiny_prior())
    htransform.refinement, seen = _refinement(), []
    htransform.refinement.register_forward_pre_hook(
        lambda _, inputs: seen.append([len(one) for one in inputs if one is not None])
    )
    initial, residual, features = torch.randn(5, 1, SIZE, SIZE), torch.randn(5, 1, SIZE, SIZE), torch.randn(5, 4)
    whole = htransform.refine(initial, residual, features)
    assert seen == [[5, 5, 5]], "small images all at once"
    for pixels, counts in ((2 * SIZE**2, [2, 2, 1]), (1, [1] * 5)):
        seen.clear()
        monkeypatch.setattr(refinement_module, "PIXELS_AT_ONCE", pixels)
        found = htransform.refine(initial, residual, features)
        assert seen == [[count] * 3 for count in counts]
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert float((whole - initial).abs().max()) > 1e-3, "the refinement does something"


def guide(likelihood, image):
    return guidance_for("fbp").of_initial(likelihood, image, 1.0)


def _pairs(tmp_path: Path) -> SlicePairs:
    source = CTPack(write_tiny_pack(tmp_path / "train.h5"))
    scans = [tiny_scan(views=views, pixel_mm=1.0) for views in (9, 12)]
    return SlicePairs(source, scans, PriorRange())


def _likelihood(photons: float = 1e5):
    scan = tiny_scan(photons=photons)
    return scan.likelihood(scan.simulate(tiny_slices(2)), PriorRange())


def test_it_starts_at_the_reference_and_is_told_the_scan():
    images = torch.randn(2, 2, 1, SIZE, SIZE)
    assert torch.equal(Refinement(CONFIG)(*images, scan=torch.zeros(2, 4)), images[0])
    made = _refinement()
    few, many = (made(*images, scan=torch.tensor([[views, 0.0, 0.0, 0.0]] * 2)) for views in (-1.0, 1.0))
    ratio = made.spread(torch.tensor([[-1.0, 0, 0, 0]]), images[0]) / made.spread(torch.zeros(1, 4), images[0])
    assert float(ratio) == pytest.approx(torch.tensor(0.3).exp().item(), rel=1e-6)
    assert not torch.allclose(few, many, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="needs the scan features"):
        made(*images)


def test_the_mirrored_refinement_of_the_mirror_image_is_the_mirror_image_of_the_refinement():
    torch.manual_seed(5)
    made = Refinement(replace(CONFIG, arc_direction=True, mirror=True))
    with torch.no_grad():
        made.network.conv_out.weight.normal_(0, 0.1)
        made.scan_embedding[-1].weight.normal_(0, 1.0)
    images = torch.randn(2, 2, 1, SIZE, SIZE)

    def told(start: float) -> torch.Tensor:  # an arc from -a to b, mirrored, goes from -b to a
        scan = Scan(views=12, degrees=120, start=start).measurement((SIZE, SIZE), 1.0)
        likelihood = scan.likelihood(torch.zeros(2, 1, *scan.operator.range_shape), PriorRange())
        return scan_features(likelihood, direction=True)

    scan, other = told(30.0), told(40.0)  # views from 30 to 140 and, mirrored, from 40 to 150 degrees
    assert not torch.allclose(scan, other)
    one, two = (Scan(views=12, degrees=120, start=a).measurement((SIZE, SIZE), 1.0).operator for a in (30.0, 40.0))
    assert torch.allclose(one(images[0]), two(images[0].flip(-1)).flip(-2), atol=1e-4)
    for mode, equal in ((False, True), (True, False)):
        made.train(mode)
        mirrored = made(*images.flip(-1), scan=other).flip(-1)
        assert torch.allclose(mirrored, made(*images, scan=scan), atol=1e-5) is equal
    with pytest.raises(ValueError, match="mirror needs arc_direction"):
        replace(CONFIG, mirror=True)
    head = tiny_htransform(tiny_prior(), scan_features=True, arc_direction=True, refinement=made.config)
    assert not head.train().refinement.training and head.network.training


def test_a_head_works_around_the_refined_reference():
    prior, made, likelihood = tiny_prior(), _refinement(), _likelihood()
    head = tiny_htransform(prior, scan_features=True, refinement=made.config, tv_iterations=7)
    head.refinement.load_state_dict(made.state_dict())
    got = condition_for(likelihood, head)
    tv = reference_reconstruction(likelihood, "tv", iterations=7)
    expected = made(tv, guide(likelihood, tv), scan_features(likelihood))
    torch.testing.assert_close(got.initial, expected)
    torch.testing.assert_close(got.residual, guide(likelihood, expected))
    assert not torch.allclose(got.initial, tv, atol=1e-3)


def test_storage_keeps_the_refinement_and_the_hash_of_heads_without_one(tmp_path):
    prior, made = tiny_prior(), _refinement()
    plain = tiny_htransform(prior)
    assert not {"refinement", "tv_iterations"} & set(plain.config.to_dict())
    head = tiny_htransform(prior, scan_features=True, refinement=made.config, tv_iterations=40)
    save_htransform(head, tmp_path / "head")
    loaded = load_htransform(tmp_path / "head")
    assert loaded.config == head.config
    assert loaded.content_hash() == head.content_hash()
    made.relative_error = 0.75
    save_refinement(made, tmp_path / "refinement")
    again = load_refinement(tmp_path / "refinement")
    assert again.typical_error == pytest.approx(0.04 * 0.75)
    assert again.content_hash() == made.content_hash()
    meta = json.loads((tmp_path / "refinement" / "refinement.json").read_text())
    meta["config"]["spread"] = 0.05
    (tmp_path / "refinement" / "refinement.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="do not match their SHA-256"):
        load_refinement(tmp_path / "refinement")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="needs an initial reconstruction to improve"):
        HTransformConfig(reference="none", refinement=CONFIG)
    with pytest.raises(ValueError, match="tv_iterations"):
        HTransformConfig(tv_iterations=0)
    with pytest.raises(ValueError, match="spread_slopes needs scan_features"):
        RefinementConfig(spread_slopes=(1.0,))


def test_training_improves_the_reference(tmp_path):
    made = train_refinement(
        Tabulated(pairs=_pairs(tmp_path), table=TableConfig(batches=8, batch_size=4, tv_iterations=5)),
        tmp_path / "run", config=CONFIG,
        training=TrainingConfig(steps=100, batch_size=4, learning_rate=3e-3, warmup=5, ema_decay=0.9), progress=False,
    )  # fmt: skip
    table = tabulate(
        _pairs(tmp_path),
        TableConfig(batches=8, batch_size=4, tv_iterations=5),
        tmp_path / "run" / "references",
        progress=False,
    )
    batch = table.batch(torch.arange(len(table)))
    before = ((batch.start.initial - batch.x0) / made.spread(batch.features, batch.x0)).square().mean().sqrt()
    assert made.relative_error < 0.8 * float(before)


def test_an_interrupted_table_goes_on_and_a_damaged_block_is_made_anew(tmp_path):
    pairs, config = _pairs(tmp_path), TableConfig(batches=20, batch_size=2, tv_iterations=3)
    whole = tabulate(pairs, config, tmp_path / "whole", progress=False)
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    blocks = sorted((tmp_path / "broken").glob("*.safetensors"))
    assert len(blocks) == 3
    blocks[0].unlink()
    blocks[1].write_bytes(blocks[1].read_bytes()[:1000])
    again = tabulate(_pairs(tmp_path), config, tmp_path / "broken", progress=False)
    everything = torch.arange(40)
    assert torch.equal(whole.batch(everything).start.initial, again.batch(everything).start.initial)
    assert torch.equal(whole.batch(everything).features, again.batch(everything).features)
    assert len(torch.unique(whole.batch(everything).features[:, 0])) == 2  # both scans are in it
    asked = []
    assert tabulate(
        pairs, config, tmp_path / "late", should_stop=lambda: len(asked) == 1 or asked.append(1), progress=False
    ) is None  # fmt: skip
    assert len(list((tmp_path / "late").glob("*.safetensors"))) == 2  # of three
    late = tabulate(pairs, config, tmp_path / "late", should_stop=lambda: False, progress=False)
    assert torch.equal(whole.batch(everything).start.initial, late.batch(everything).start.initial)
    with pytest.raises(ValueError, match=r"a table of 1000000000 batches of 2 pairs needs at least .* take fewer"):
        tabulate(pairs, replace(config, batches=10**9), tmp_path / "large", progress=False)
    assert not (tmp_path / "large").exists()
    with pytest.raises(ValueError, match="was started with seed 0 and this run has seed 1"):
        tabulate(pairs, replace(config, seed=1), tmp_path / "whole", progress=False)
    (tmp_path / "whole" / "table.json").unlink()  # every file says itself what it depends on
    fresh = tabulate(pairs, replace(config, seed=1), tmp_path / "fresh", progress=False)
    for overwrite in (False, True):
        other = tabulate(pairs, replace(config, seed=1), tmp_path / "whole", overwrite=overwrite, progress=False)
        assert torch.equal(other.batch(everything).start.initial, fresh.batch(everything).start.initial)
        assert not torch.equal(other.batch(everything).start.initial, whole.batch(everything).start.initial)


def test_the_head_training_leaves_the_refinement_as_it_is(tmp_path):
    prior, made = tiny_prior(), _refinement()
    source, scan = CTPack(write_tiny_pack(tmp_path / "train.h5")), tiny_scan(pixel_mm=1.0)
    config = HTransformConfig(
        network=replace(NETWORK, norm_groups=16),
        scan_features=True,
        refinement=made.config,
        spread_slopes=SPREAD_SLOPES,
    )
    training = TrainingConfig(steps=2, batch_size=2)
    head = train_htransform(
        SlicePairs(source, [scan]), prior, tmp_path / "run", config=config, training=training,
        options=HTransformTraining(refinement=made), progress=False,
    )  # fmt: skip
    assert head.precision == "float32"
    for name, value in made.state_dict().items():
        assert torch.equal(head.refinement.state_dict()[name], value)
    assert any(bool((value != 0).any()) for value in head.network.conv_out.state_dict().values())
    with pytest.raises(ValueError, match="must be the shape of the refinement"):
        train_htransform(
            SlicePairs(source, [scan]), prior, tmp_path / "other", config=config, training=training, progress=False
        )  # fmt: skip
    assert isinstance(head, HTransform)


def test_the_commands_train_a_refinement_and_a_head_with_it(tmp_path, monkeypatch):
    from deft_ct.workflows import training_setup

    monkeypatch.setattr(training_setup, "GEOMETRIES", 2)
    save_prior(tiny_prior(), tmp_path / "prior")
    write_tiny_pack(tmp_path / "train.h5")
    common = ["--any-scan", "--scan", "parallel12_1e5", "--data", str(tmp_path / "train.h5"), "--steps", "2"]
    common += ["--batch-size", "2", "--no-progress"]

    def run(*words: str) -> Path:
        result = CliRunner().invoke(app, ["train", *words, *common])
        assert result.exit_code == 0, result.output
        return Path(json.loads(result.output.splitlines()[-1])["model"])

    refined = run(
        "refinement", "--out", str(tmp_path / "r"), "--batches", "2", "--tv-iterations", "3", "--channels", "64,64"
    )
    head = load_htransform(
        run(
            "htransform",
            "--out",
            str(tmp_path / "h"),
            "--prior",
            str(tmp_path / "prior"),
            "--refinement",
            str(refined),
            "--tv-iterations",
            "3",
            "--channels",
            "64,64",
            "--batches",
            "2",
            "--table",
            str(tmp_path / "r" / "references"),
        )
    )
    assert not (tmp_path / "h" / "references").exists()
    made = load_refinement(refined)
    assert made.card["scan"]["fan_degrees"] == [90, 360]
    assert head.config.refinement == made.config
    assert head.config.tv_iterations == 3
    assert head.config.spread == pytest.approx(made.typical_error)


def test_a_head_trained_from_a_table_sees_the_data_that_it_was_made_of(tmp_path):
    pairs, config = _pairs(tmp_path), TableConfig(batches=3, batch_size=2, tv_iterations=4)
    table = tabulate(pairs, config, tmp_path / "references", progress=False)
    again = draw_batch(_pairs(tmp_path), config, 1)
    known = table.whole_batch(1)
    torch.testing.assert_close(known.x0, again.x0, rtol=1e-3, atol=1e-3)  # kept as float16
    expected = reference_reconstruction(again.likelihood, "tv", iterations=4)
    torch.testing.assert_close(known.start.initial, expected, rtol=1e-3, atol=1e-3)

    prior, head = tiny_prior(), tiny_htransform(tiny_prior(), tv_iterations=4)
    t, noise = torch.tensor([300, 20]), torch.randn(again.x0.shape)
    losses = [denoising_loss(head, head, prior, again, t, noise, tabulated=given) for given in (None, known.start)]
    torch.testing.assert_close(*losses, rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="must be a multiple of that of the references, 2"):
        train_htransform(
            pairs, prior, tmp_path / "run", config=head.config, options=HTransformTraining(table=table),
            training=TrainingConfig(steps=1, batch_size=3), progress=False,
        )  # fmt: skip


def test_crops_of_larger_slices_are_a_part_of_the_batches(tmp_path, monkeypatch):
    small, table = _pairs(tmp_path), TableConfig(batches=2, batch_size=2, tv_iterations=2)
    with h5py.File(write_tiny_pack(tmp_path / "larger.h5"), "r+") as file:
        for group in file.values():
            hu = np.pad(group["hu"][...], ((0, 0), (8, 8), (4, 4)), constant_values=-1000)
            del group["hu"]
            group["hu"] = hu
    wide = Scan(views=9).measurement((48, 40), 1.0)
    larger = SlicePairs(CTPack(tmp_path / "larger.h5"), [wide], PriorRange())
    seen = []
    true = train_refinement_module._cropped

    def cropped(batch, shape, generator):
        found = true(batch, shape, generator)
        seen.append((batch, found))
        return found

    monkeypatch.setattr(train_refinement_module, "_cropped", cropped)
    training = TrainingConfig(steps=40, batch_size=2, learning_rate=1e-4)

    def trained(folder: str, **change: object) -> Refinement:
        sources = {"source": Tabulated(pairs=small, table=table), "larger": Tabulated(pairs=larger, table=table)}
        source, more = ({**sources, **change}[name] for name in ("source", "larger"))
        return train_refinement(
            source, tmp_path / folder, config=CONFIG, training=training, larger=more, progress=False
        )  # fmt: skip

    made = trained("run")
    assert 3 <= len(seen) <= 20, "a quarter of 40"
    places = set()
    for whole, part in seen:
        assert whole.x0.shape[-2:] == (48, 40) and part.x0.shape[-2:] == (SIZE, SIZE)
        (place,) = [
            (top, left)
            for top in range(17) for left in range(9)
            if torch.equal(whole.x0[..., top : top + SIZE, left : left + SIZE], part.x0)
        ]  # fmt: skip
        places.add(place)
        rows, columns = (slice(first, first + SIZE) for first in place)
        for one, other in zip(whole.start[:2], part.start[:2], strict=True):
            assert torch.equal(one[..., rows, columns], other)
        assert torch.equal(whole.features, part.features)
    assert len(places) > 2
    assert made.content_hash() != trained("alone", larger=None).content_hash()
    assert made.content_hash() == trained("again").content_hash()
    with pytest.raises(OtherContentError):
        trained("run", larger=None)
    with pytest.raises(ValueError, match="larger slices have at least"):
        trained("turned", source=Tabulated(pairs=larger, table=table), larger=Tabulated(pairs=small, table=table))
