"""Training of the spread network, with all images and without some of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SIZE, tiny_htransform, tiny_prior, tiny_scan
from tiny_pack import write_tiny_pack
from tiny_spread import CONFIG, tiny_networks

from deft_ct.ct.pairs import SlicePairs
from deft_ct.datasets.packs import CTPack
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import (
    Condition,
    SpreadNetwork,
)
from deft_ct.methods.deft.initial_table import TableConfig
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.train_spread import tabulate_means, train_spread
from deft_ct.runtime.content_key import OtherContentError
from deft_ct.training import TrainingConfig


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


def setting(tmp_path: Path) -> SlicePairs:
    source = CTPack(write_tiny_pack(tmp_path / "train.h5"))
    return SlicePairs(source, [tiny_scan(views=views, pixel_mm=1.0) for views in (9, 12)], PriorRange())


TABLE = TableConfig(batches=3, batch_size=2, tv_iterations=3)
TRAINING = TrainingConfig(steps=25, batch_size=4, learning_rate=5e-3, warmup=2, ema_decay=0.5, seed=1)


def test_training_lowers_the_loss_resumes_and_is_deterministic(networks, tmp_path: Path):
    pairs, solver = setting(tmp_path), DEFT(*networks)
    table = tabulate_means(pairs, solver, TABLE, tmp_path / "a" / "means", progress=False)
    columns = table.columns
    error, mean = (columns[name].float() for name in ("error", "mean"))
    assert error.shape == (6, 1, SIZE, SIZE) and float(error.abs().mean()) > 0
    condition = Condition(
        initial=columns["refined"].float(), residual=columns["residual"].float(),
        unrefined=columns["unrefined"].float(), features=columns["scan"],
    )  # fmt: skip

    def loss(network: SpreadNetwork) -> float:
        with torch.no_grad():
            scale = network(mean, condition)
        return float((scale.log() + error.abs() / scale).mean())

    made = train_spread(table, tmp_path / "a", config=CONFIG, training=TRAINING, progress=False)
    assert loss(made) < loss(SpreadNetwork(CONFIG)) - 0.05
    assert made.htransform_hash == solver.htransform.content_hash()
    again = train_spread(table, tmp_path / "b", config=CONFIG, training=TRAINING, progress=False)
    assert again.content_hash() == made.content_hash()
    other = tabulate_means(pairs, solver, replace(TABLE, seed=5), tmp_path / "c" / "means", progress=False)
    with pytest.raises(OtherContentError):
        train_spread(other, tmp_path / "a", config=CONFIG, training=TRAINING, progress=False)


def test_a_network_learns_nothing_of_the_images_that_are_left_out(networks, tmp_path: Path):
    pairs, solver = setting(tmp_path), DEFT(*networks)
    table = tabulate_means(pairs, solver, replace(TABLE, batches=6), tmp_path / "means", progress=False)
    left = {int(table.items[0])}
    seen = torch.tensor([int(item) in left for item in table.items])
    assert 0 < int(seen.sum()) < len(seen)
    spoilt = replace(table, columns={**table.columns, "error": table.columns["error"].clone()})
    spoilt.columns["error"][seen] *= 50

    def trained(of, name: str, left_out=()):
        made = train_spread(of, tmp_path / name, config=CONFIG, training=TRAINING, left_out=left_out, progress=False)
        return made.content_hash()

    assert trained(table, "a", left) == trained(spoilt, "b", left)
    assert trained(table, "c") != trained(spoilt, "d")
    with pytest.raises(OtherContentError):
        trained(table, "a")
    with pytest.raises(ValueError, match="left out"):
        trained(table, "e", range(len(pairs)))


def test_an_h_transform_without_an_initial_reconstruction_has_no_spread_network(tmp_path: Path):
    prior = tiny_prior()
    bare = tiny_htransform(prior, reference="none", guidance="score")
    with pytest.raises(ValueError, match="needs an h-transform with an initial reconstruction"):
        tabulate_means(setting(tmp_path), DEFT(prior, bare), TABLE, tmp_path / "means", progress=False)
