"""A refinement that sees a second reconstruction of the data: its form, its storage, its training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.pairs import SlicePairs
from deft_ct.datasets.packs import CTPack
from deft_ct.diffusion import save_prior
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import (
    condition_for,
    conditioning,
    load_htransform,
    load_refinement,
    save_htransform,
    save_refinement,
)
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, check_htransform, scan_features
from deft_ct.methods.deft.initial_table import TableConfig, draw_batch, second_name, tabulate
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train import HTransformTraining, start_from_htransform, train_htransform
from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement, with_second
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.methods.supervised.learned_primal_dual import PrimalDualModel, PrimalDualShape
from deft_ct.runtime.content_key import OtherContentError
from deft_ct.runtime.evaluations import count_evaluations
from deft_ct.training import TrainingConfig

SHAPE = PrimalDualShape(iterations=2, channels=8, memory=3, scan_features=True)
ALONE = RefinementConfig(network=replace(NETWORK, norm_groups=16), spread_slopes=SPREAD_SLOPES, scan_features=True)
CONFIG = replace(ALONE, second=SHAPE)
TABLE = TableConfig(batches=3, batch_size=2, tv_iterations=3)
TRAINING = TrainingConfig(steps=3, batch_size=2)
FIRST_SHARE = 1 / (1 + torch.tensor(1.5).exp().item())


def model(seed: int = 7) -> PrimalDualModel:
    torch.manual_seed(seed)
    made = PrimalDualModel(SHAPE)
    with torch.no_grad():
        made.scan_embedding[-1].weight.normal_(0, 0.5)
        for update in [*made.dual, *made.primal]:
            update[-1].weight.normal_(0, 0.02)
    return made.eval().requires_grad_(False)


def refinement(config: RefinementConfig = CONFIG, seed: int = 3) -> Refinement:
    torch.manual_seed(seed)
    made = Refinement(config)
    with torch.no_grad():
        made.network.conv_out.weight.normal_(0, 0.1)
        made.scan_embedding[-1].weight.normal_(0, 1.0)
        if made.share is not None:
            made.share.weight.normal_()
    if made.second is not None:
        made.second.load_state_dict(model().state_dict())
    return made.eval().requires_grad_(False)


def likelihood(photons: float = 1e5):
    scan = tiny_scan(photons=photons)
    return scan.likelihood(scan.simulate(tiny_slices(2)), PriorRange())


def pairs(folder: Path) -> SlicePairs:
    scans = [tiny_scan(views=views, pixel_mm=1.0) for views in (9, 12)]
    return SlicePairs(CTPack(write_tiny_pack(folder / "train.h5")), scans, PriorRange())


def images(count: int = 3) -> tuple[torch.Tensor, ...]:
    return torch.randn(count, 2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).unbind(0)


def test_it_starts_between_both_reconstructions_with_a_share_of_the_second():
    v, g, second = images()
    found = Refinement(CONFIG)(v, g, torch.zeros(2, 4), None, second)
    torch.testing.assert_close(found, (1 - FIRST_SHARE) * v + FIRST_SHARE * second)


def test_the_share_follows_the_scan_and_the_network_sees_the_difference():
    v, g, second = images()
    made = refinement()
    scan = torch.tensor([[0.5, 0.1, -0.2, 0.3], [-1.0, 0.0, 0.4, 0.0]])
    share = torch.sigmoid(scan @ made.share.weight[0] - 1.5).reshape(2, 1, 1, 1)
    spread = made.spread(scan, v)
    extra = made.scan_embedding(scan)
    seen = torch.cat([v, g / CONFIG.guidance_scale, (second - v) / spread], 1)
    alone = v + spread * made.network(seen, torch.full((2,), 999.0), extra)
    torch.testing.assert_close(made(v, g, scan, None, second), (1 - share) * alone + share * second)
    with torch.no_grad():
        made.share.bias.fill_(50.0)
        made.share.weight.zero_()
    assert torch.equal(made(v, g, scan, None, second), second)


def test_without_features_of_the_scan_there_is_one_share():
    v, g, second = images()
    made = Refinement(RefinementConfig(network=replace(NETWORK, norm_groups=16), second=SHAPE))
    torch.testing.assert_close(made(v, g, None, None, second), torch.lerp(v, second, FIRST_SHARE))


def test_both_or_neither():
    v, g, second = images()
    with pytest.raises(ValueError, match="needs a second reconstruction"):
        refinement()(v, g, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="takes no second reconstruction"):
        refinement(ALONE)(v, g, torch.zeros(2, 4), None, second)
    with pytest.raises(ValueError, match="one channel"):
        replace(CONFIG, channels=3)
    assert refinement(ALONE).second_image(likelihood()) is None


def test_the_second_reconstruction_takes_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made, given, seen = refinement(), likelihood(), []
    made.second.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].y)))
    whole = made.second_image(given)
    monkeypatch.setattr("deft_ct.methods.deft.refinement.PIXELS_AT_ONCE", SIZE**2)
    torch.testing.assert_close(made.second_image(given), whole, rtol=1e-4, atol=1e-5)
    assert seen == [2, 1, 1]


def test_the_mirrored_refinement_mirrors_the_second_reconstruction_too():
    v, g, second = images()
    made = refinement(replace(CONFIG, arc_direction=True, mirror=True))
    with torch.no_grad():  # a share that depends on the direction would be another one after the mirror
        made.share.weight[:, 5] = 0
    scan = torch.tensor([[0.5, 0.1, -0.2, 0.3, 0.4, -0.7]] * 2)
    other = scan * torch.tensor([1.0, 1, 1, 1, 1, -1])
    for mode, equal in ((False, True), (True, False)):
        made.train(mode)
        assert made.second.training is False, "it is frozen"
        turned = made(v.flip(-1), g.flip(-1), other, None, second.flip(-1)).flip(-1)
        assert torch.allclose(turned, made(v, g, scan, None, second), atol=1e-5) is equal


def test_an_h_transform_works_around_both_and_counts_no_evaluation():
    prior, made, given = tiny_prior(), refinement(), likelihood()
    head = tiny_htransform(prior, scan_features=True, refinement=made.config, tv_iterations=7)
    head.refinement.load_state_dict(made.state_dict())
    with count_evaluations() as count:
        found = condition_for(given, head)
    assert count.total == 0
    tv, second = reference_reconstruction(given, "tv", iterations=7), model()(given)
    assert float((second - tv).abs().max()) > 1e-2
    expected = made(tv, made.guidance.of_initial(given, tv, 1.0), scan_features(given), None, second)
    torch.testing.assert_close(found.initial, expected)
    assert torch.equal(found.unrefined, tv)
    head.precision = "bfloat16"
    lower = condition_for(given, head).initial
    assert not torch.equal(lower, found.initial) and torch.allclose(lower, found.initial, atol=0.05)


def test_an_image_alone_is_refined_as_in_a_batch():
    prior, made = tiny_prior(), refinement()
    head = tiny_htransform(prior, scan_features=True, refinement=made.config, tv_iterations=3)
    head.refinement.load_state_dict(made.state_dict())
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(3))
    whole, one = (DEFT(prior, head).reconstruct(y[:count], scan, seed=0).mean for count in (3, 1))
    torch.testing.assert_close(whole[:1], one, rtol=1e-5, atol=1e-6)


def test_what_the_second_model_cannot_take_is_refused_before_any_work(monkeypatch):
    given, asked = likelihood(), []
    monkeypatch.setattr(conditioning, "check_unrolled", lambda name, seen, told_scan: asked.append((seen, told_scan)))
    for config in (ALONE, CONFIG):
        head = tiny_htransform(tiny_prior(), scan_features=True, refinement=config)
        check_htransform("deft", head.config, (1, SIZE, SIZE), given)
    assert asked == [(given, True)]


def test_storage_keeps_the_second_model(tmp_path):
    made = refinement()
    assert RefinementConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    assert "second" not in ALONE.to_dict() and RefinementConfig.from_dict(ALONE.to_dict()) == ALONE
    save_refinement(made, tmp_path / "refinement")
    again = load_refinement(tmp_path / "refinement")
    assert again.content_hash() == made.content_hash()
    given = likelihood()
    torch.testing.assert_close(again.second_image(given), model()(given), rtol=1e-2, atol=1e-2)  # kept as float16
    head = tiny_htransform(tiny_prior(), scan_features=True, refinement=CONFIG)
    save_htransform(head, tmp_path / "head")
    assert load_htransform(tmp_path / "head").content_hash() == head.content_hash()


def test_a_table_keeps_the_second_reconstructions(tmp_path):
    source, second = pairs(tmp_path), model()
    config = replace(TABLE, second=second_name(second))
    table = tabulate(source, config, tmp_path / "table", second=second, progress=False)
    plain = tabulate(source, TABLE, tmp_path / "plain", progress=False)
    everything = torch.arange(len(table))
    assert plain.batch(everything).start.second is None
    assert torch.equal(plain.batch(everything).start.initial, table.batch(everything).start.initial)
    expected = torch.cat([second(draw_batch(source, config, number).likelihood) for number in range(3)])
    assert torch.equal(table.batch(everything).start.second, expected.half().float())
    other = model(seed=8)
    with pytest.raises(OtherContentError):
        tabulate(source, replace(TABLE, second=second_name(other)), tmp_path / "table", second=other, progress=False)
    with pytest.raises(ValueError, match="must belong together"):
        tabulate(source, config, tmp_path / "table", progress=False)
    assert "second" not in TABLE.to_dict() and config.to_dict()["second"] == f"{second.content_hash()} in float32"


def test_training_starts_from_a_refinement_without_one_and_keeps_the_model_as_it_is(tmp_path):
    first, second, source = refinement(ALONE), model(), pairs(tmp_path)
    table = replace(TABLE, second=second_name(second))

    def trained(steps: int, initial: Refinement | None) -> Refinement:
        made = train_refinement(
            Tabulated(pairs=source, table=table), tmp_path / f"run{steps}", config=CONFIG, progress=False,
            training=replace(TRAINING, steps=steps, learning_rate=1e-9 if steps == 1 else 1e-2), initial=initial,
        )  # fmt: skip
        return made.requires_grad_(False)

    begun = with_second(CONFIG, second, initial=first)
    v, g, image = images()
    scan = torch.zeros(2, 4)
    start = trained(1, begun)
    expected = torch.lerp(first(v, g, scan), image, FIRST_SHARE)
    torch.testing.assert_close(start(v, g, scan, None, image), expected, rtol=1e-4, atol=1e-5)
    done = trained(3, begun)
    assert float((done(v, g, scan, None, image) - expected).abs().max()) > 1e-3
    for name, value in second.state_dict().items():
        assert torch.equal(done.second.state_dict()[name], value)
    assert float((done.share.bias - start.share.bias).abs()) > 0
    assert float(done.network.conv_in.weight[:, -1].abs().max()) > 0, "the new channel learns"
    with pytest.raises(ValueError, match="start from a refinement of with_second"):
        trained(2, None)
    source.value_range = PriorRange(-1000.0, 2000.0)
    with pytest.raises(ValueError, match="the pairs have PriorRange"):
        trained(2, begun)
    with pytest.raises(ValueError, match="another shape"):
        with_second(CONFIG, second, initial=Refinement(replace(CONFIG, second=replace(SHAPE, channels=4))))
    with pytest.raises(ValueError, match="must be the shape of the model"):
        with_second(ALONE, second)
    second.value_range = PriorRange(-500.0, 500.0)
    with pytest.raises(ValueError, match="it is for PriorRange"):
        with_second(CONFIG, second)


def test_an_h_transform_is_trained_from_a_table_with_the_second_reconstructions(tmp_path):
    made, source, prior = refinement(), pairs(tmp_path), tiny_prior()
    config = tiny_htransform(prior, scan_features=True, refinement=CONFIG, tv_iterations=3).config
    config = replace(config, network=CONFIG.network)
    table = tabulate(
        source, replace(TABLE, second=second_name(made.second)), tmp_path / "table", second=made.second,
        progress=False,
    )  # fmt: skip
    options = HTransformTraining(refinement=made, table=table)
    head = train_htransform(
        source, prior, tmp_path / "run", config=config, training=TRAINING, options=options, progress=False
    )
    for name, value in made.state_dict().items():
        assert torch.equal(head.refinement.state_dict()[name], value)
    plain = tabulate(source, TABLE, tmp_path / "plain", progress=False)
    with pytest.raises(ValueError, match="must hold the second reconstructions"):
        train_htransform(
            source, prior, tmp_path / "other", config=config, training=TRAINING,
            options=replace(options, table=plain), progress=False,
        )  # fmt: skip
    # An h-transform around another refinement gives its own weights, and not those of the refinement.
    before = tiny_htransform(prior, scan_features=True, refinement=ALONE, tv_iterations=3, network=CONFIG.network)
    told = start_from_htransform(head, before)
    assert "has another refinement" in told
    assert torch.equal(head.network.conv_in.weight, before.network.conv_in.weight)
    assert torch.equal(head.refinement.share.bias, made.share.bias)


def test_the_commands_train_with_a_second_model_and_fit_it_to_a_scan(tmp_path, monkeypatch):
    from deft_ct.workflows import training_setup

    monkeypatch.setattr(training_setup, "GEOMETRIES", 2)
    save_prior(tiny_prior(), tmp_path / "prior")
    write_tiny_pack(tmp_path / "train.h5")
    second = model()
    second.save(tmp_path / "second", dtype=torch.float32)
    steps = ["--data", str(tmp_path / "train.h5"), "--steps", "2", "--batch-size", "2", "--no-progress"]
    common = ["--any-scan", "--scan", "parallel12_1e5", *steps]

    def run(*words: str) -> Path:
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code == 0, result.output
        return Path(json.loads(result.output.splitlines()[-1])["model"])

    small = ["--batches", "2", "--tv-iterations", "3", "--channels", "64,64"]
    refined = run(
        "train", "refinement", *common, *small, "--second", str(tmp_path / "second"), "--out", str(tmp_path / "r")
    )
    made = load_refinement(refined)
    assert made.card["second"]["sha256"] == second.content_hash()
    assert made.second.content_hash() == second.content_hash()
    again = load_refinement(
        run("train", "refinement", *common, *small, "--initial", str(refined), "--out", str(tmp_path / "r2"))
    )
    assert again.config == made.config and again.card["second"] == made.card["second"]
    head = run(
        "train", "htransform", *common, *small, "--prior", str(tmp_path / "prior"), "--refinement", str(refined),
        "--table", str(tmp_path / "r" / "references"), "--out", str(tmp_path / "h"),
    )  # fmt: skip
    assert load_htransform(head).refinement.second.content_hash() == second.content_hash()
    fitted = load_htransform(
        run(
            "finetune", *steps, "--scan", "parallel12_1e5", "--one-scan", "--refinement-steps", "2", "--prior",
            str(tmp_path / "prior"), "--initial", str(head), "--out", str(tmp_path / "f"),
        )
    )  # fmt: skip
    assert fitted.refinement.second.content_hash() == second.content_hash()
    before, after = (one.refinement.network.conv_out.weight for one in (load_htransform(head), fitted))
    assert not torch.equal(before, after)
