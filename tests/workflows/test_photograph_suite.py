"""A benchmark of photographs: tasks x methods through the plan, the store and the page of CT, in words of its own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NETWORK

from deft_ct.diffusion import Prior, save_prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.evaluation.parquet_store import read_rows
from deft_ct.evaluation.runner import failures, run_benchmark
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.presets import Preset
from deft_ct.networks import UNet
from deft_ct.networks.tiles import TiledNetwork
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.reconstructor import PriorReconstructor
from deft_ct.workflows.benchmark import build_benchmark, run_suite
from deft_ct.workflows.natural_networks import NaturalNetworks
from deft_ct.workflows.restore import RestoreSettings, restore_photograph
from deft_ct.workflows.suite import Suite

METHODS = ("cgls:iterations=3", "dds:steps=2", "dps:steps=2")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        row = (40 * n + 8 * np.arange(16)).astype(np.uint8)
        Image.fromarray(np.stack(3 * [np.tile(row, (16, 1))], -1)).save(folder / f"{n}.png")
    return folder


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = UNet(NETWORK.with_channels(3, 3))
    folder = tmp_path_factory.mktemp("prior") / "prior"
    save_prior(Prior(network, Schedule(), image_shape=(3, 16, 16)), folder)
    return folder


def suite(pictures: Path, prior: Path, **values: object) -> Suite:
    given = {"tasks": ("sr4", "dps/inpainting-box", "hdr"), "methods": METHODS, "batch_size": 2} | values
    return Suite(data=(f"photos:{pictures}:16",), prior=str(prior), **given)  # type: ignore[arg-type]


def test_tasks_by_methods_in_one_table_each(pictures: Path, prior: Path, tmp_path: Path) -> None:
    benchmark = build_benchmark(suite(pictures, prior))
    assert not failures(run_benchmark(benchmark, tmp_path))  # linear methods do not suit hdr, which is no failure
    rows = read_rows(tmp_path)
    counts = rows.groupby(["problem", "method", "status"], sort=False).size().to_dict()
    for problem in ("sr4", "dps-inpainting-box", "hdr"):
        for method in METHODS:
            status = "ok" if problem != "hdr" or method.startswith("dps") else "failed"
            assert counts.pop((problem, method, status)) == 3
    assert not counts
    assert set(rows.loc[rows["status"] == "failed", "reason"].str.partition(": ")[0]) == {"not applicable"}
    done = rows[rows["status"] == "ok"]
    np.testing.assert_allclose(done["psnr_db"], -20 * np.log10(done["rmse"] / 2), rtol=1e-6)


def test_the_words_are_those_of_photographs(pictures: Path, prior: Path, tmp_path: Path) -> None:
    run_suite(suite(pictures, prior, tasks=("sr4",), methods=("cgls:iterations=3",), panels=2), tmp_path)
    text = _read(tmp_path / "benchmark.html")
    assert "data:image/png;base64," in text and [path.name for path in (tmp_path / "panels").iterdir()] == ["sr4.png"]
    page = re.sub(r"<(style|script).*?</\1>|<pre>.*?</pre>|<svg.*?</svg>|base64,[^\"]*", "", text, flags=re.DOTALL)
    for spoken in (page, *(_read(tmp_path / name) for name in ("summary.md", "summary.csv", "summary.tex"))):
        found = re.search(
            r"\b(patients?|slices?|HU|CT|scans?|clinical|views?|projections?)\b",
            spoken.replace("deft-ct", ""),
            re.IGNORECASE,
        )
        assert found is None, found
        assert "photograph" in spoken


def test_more_pictures_use_the_rows_that_are_there(pictures: Path, prior: Path, tmp_path: Path) -> None:
    values = {"tasks": ("sr4",), "batch_size": 1, "methods": ("cgls:iterations=3",)}
    run_benchmark(build_benchmark(suite(pictures, prior, limit=1, **values)), tmp_path)
    first = read_rows(tmp_path)
    run_benchmark(build_benchmark(suite(pictures, prior, **values)), tmp_path)
    rows = read_rows(tmp_path)
    assert len(rows) == 3
    kept = rows[rows["image_id"] == "0"].set_index("method")["seconds"]
    assert kept.to_dict() == first.set_index("method")["seconds"].to_dict()  # measured once


def test_a_preset_is_found_by_the_label_of_the_task(pictures: Path, prior: Path, tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    for label, folder in (("sr4", "sr4"), ("sr2", "hdr")):
        path = presets / folder / "dps.json"
        path.parent.mkdir(parents=True)
        Preset(method="dps", scan=label, options={"steps": 3}, provenance={}).write(path)
    chosen = suite(pictures, prior, methods=("dps",), preset_folder=str(presets))
    said: list[str] = []
    with pytest.raises(ValueError, match="was tuned for sr2, not for hdr"):
        build_benchmark(chosen, said.append)
    built = build_benchmark(
        suite(pictures, prior, tasks=("sr4",), methods=("dps",), preset_folder=str(presets)), said.append
    )
    assert built.methods[0]["dps"].config.steps == 3


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_large_pictures_are_seen_in_tiles_as_in_restoring_one(prior: Path, tmp_path: Path) -> None:
    """Restoring and comparing a picture of twice the side of the prior's give the same result."""
    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "large.png"
    ramp = np.add.outer(3 * np.arange(32), 4 * np.arange(32)).astype(np.uint8)
    Image.fromarray(np.stack([ramp, 255 - ramp, ramp], -1)).save(picture)
    settings = RestoreSettings(operator="denoise", method="dds", options={"steps": 2}, prior=str(prior), seed=0)
    restored = restore_photograph(picture, tmp_path / "out", settings)
    with Image.open(picture) as image:
        truth = torch.tensor(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
    operator, noise = parse_task("denoise").build((3, 32, 32), seed=0)
    measurement = Measurement(operator, noise)
    networks = NaturalNetworks(settings)
    first = networks.for_task("denoise").build("dds", {"steps": 2})
    second = networks.for_task("sr4").build("dds", {"steps": 2})
    assert isinstance(first, PriorReconstructor) and isinstance(second, PriorReconstructor)
    assert isinstance(first.prior.network, TiledNetwork) and first.prior.network is second.prior.network
    assert not isinstance(first.prior.network.network, TiledNetwork)  # no tiles of tiles
    y = measurement.simulate(truth, seed=0, image_ids=["channel 0"])
    found = first.reconstruct(y, measurement, seed=0, image_ids=["channel 0"]).mean
    assert torch.equal(found, restored.result.mean)
