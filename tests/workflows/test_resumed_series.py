"""A series in batches: killed and resumed, of any batch size, in bounded memory."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from seeded_sampler import NoConfig, SeededSampler

from deft_ct.io import Chosen, read_dicom_series, sample_series_path, write_nifti
from deft_ct.methods.registry import Networks
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.parts import unfinished_folder
from deft_ct.workflows import reconstruct_series as pipeline
from deft_ct.workflows import series_batches
from deft_ct.workflows.reconstruct_series import Run, SparseView, native_size, reconstruct_series
from deft_ct.workflows.series_batches import Division, SliceBatch, division_of, joined_provenance, ranges
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(compare=("fbp",), views=12, samples=2, size=32, photons=1e4)


class Counted(SeededSampler):
    """Counts the slices that it has worked on."""

    slices = 0
    stop_after = 10**9

    def _estimate(self, request: Request) -> Estimate:
        if Counted.slices >= Counted.stop_after:
            raise KeyboardInterrupt
        Counted.slices += len(request.y)
        return super()._estimate(request)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Networks.build

    def build(networks: Networks, name: str, *more: Any, **options: Any) -> Reconstructor:
        return Counted(NoConfig()) if name == "deft" else real(networks, name, *more, **options)

    monkeypatch.setattr(Networks, "build", build)
    monkeypatch.setattr(Counted, "slices", 0)
    monkeypatch.setattr(Counted, "stop_after", 10**9)


def at_once(monkeypatch: pytest.MonkeyPatch, count: int, *, workers: int = 1) -> None:
    division = Division(slices=count, workers=workers)
    monkeypatch.setattr(pipeline, "division_of", lambda *_, **__: division)


def run(out: Path, settings: SparseView = SETTINGS, **more: Any) -> Run:
    return reconstruct_series(sample_series_path(), out, settings, **more)


def content(folder: Path) -> dict[str, Any]:
    """Everything that was written, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".dcm":
            image = pydicom.dcmread(path)
            found[name] = (image.PixelData, image.SOPInstanceUID, image.SeriesInstanceUID, image.DerivationDescription)
        elif path.suffix == ".gz":
            found[name] = gzip.decompress(path.read_bytes())
        elif path.suffix == ".png":
            found[name] = path.read_bytes()
    record = json.loads((folder / "run.json").read_text())
    found["metrics"] = [row["metrics"] for row in record["metrics"]]
    return found


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 3)
    whole = content(run(tmp_path / "whole").folder)
    assert Counted.slices == 8
    out, left = tmp_path / "out", unfinished_folder(tmp_path / "out")
    Counted.slices, Counted.stop_after = 0, 5
    with pytest.raises(KeyboardInterrupt):
        run(out)
    assert not out.exists() and len(list(left.glob("part-*.npz"))) == 2
    at_once(monkeypatch, 8)  # now there would be memory for more, and the batches stay as they were
    Counted.slices, Counted.stop_after = 0, 10**9
    assert content(run(out).folder) == whole
    assert Counted.slices == 2 and not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize(("count", "workers"), [(5, 1), (3, 2), (1, 4)])
def test_batches_do_not_matter(count: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 8)
    whole = content(run(tmp_path / "whole").folder)
    at_once(monkeypatch, count, workers=workers)
    assert content(run(tmp_path / "parts").folder) == whole


def test_a_run_of_several_workers_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 8)
    whole = content(run(tmp_path / "whole").folder)
    at_once(monkeypatch, 1, workers=2)
    Counted.slices, Counted.stop_after = 0, 5
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    stored = len(list(unfinished_folder(tmp_path / "out").glob("part-*.npz")))
    assert 3 <= stored <= 5  # the last two may be on their way when a worker is interrupted
    at_once(monkeypatch, 4)  # now there is one worker, and the batches stay as they were
    Counted.slices, Counted.stop_after = 0, 10**9
    assert content(run(tmp_path / "out").folder) == whole and Counted.slices == 8 - stored


def test_threads_are_those_of_the_run_that_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    real = Counted._estimate

    def estimate(self: Counted, request: Request) -> Estimate:
        found.append(torch.get_num_threads())
        return real(self, request)

    monkeypatch.setattr(Counted, "_estimate", estimate)
    for threads, stop in ((2, 4), (3, 10**9)):
        monkeypatch.setattr(pipeline, "division_of", lambda *_, t=threads, **__: Division(slices=4, threads=t))
        monkeypatch.setattr(Counted, "stop_after", stop)
        try:
            run(tmp_path / "out")
        except KeyboardInterrupt:
            assert stop == 4
    assert found == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "settings.seed"), ({"views": 10}, "settings.views")],
)
def test_parts_of_other_settings_are_not_used(
    change: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, 3)
    Counted.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    monkeypatch.setattr(Counted, "stop_after", 10**9)
    Counted.slices = 0
    other = replace(SETTINGS, **change)
    done = run(tmp_path / "out", other)
    assert Counted.slices == 8 and named in done.notes[-1] and "an unfinished run" in done.notes[-1]
    assert content(done.folder) == content(run(tmp_path / "again", other).folder)


def test_a_damaged_part_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch, 3)
    whole = content(run(tmp_path / "whole").folder)
    Counted.slices, Counted.stop_after = 0, 6
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    part = unfinished_folder(tmp_path / "out") / "part-00000-00003.npz"
    part.write_bytes(part.read_bytes()[:-100])
    Counted.slices, Counted.stop_after = 0, 10**9
    assert content(run(tmp_path / "out").folder) == whole and Counted.slices == 5


def test_an_error_before_the_first_batch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "stop_after", 0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_beside_the_parts_is_kept(tmp_path: Path) -> None:
    left = unfinished_folder(tmp_path / "out")
    left.mkdir()
    (left / "thesis.txt").write_text("of the user")
    run(tmp_path / "out")
    assert [path.name for path in left.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_kills_at_random_moments(seed: int, tmp_path: Path, repository_root: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom deft_ct.workflows import reconstruct_series as pipeline\n"
        "from deft_ct.io import sample_series_path\nfrom deft_ct.workflows.series_output import Output\n"
        "from deft_ct.workflows.series_batches import Division\n"
        "pipeline.division_of = lambda *_, **__: Division(slices=2, workers=2)\n"
        "settings = pipeline.SparseView(method='tv', compare=('fbp',), views=12, samples=1, size=48, photons=1e4)\n"
        "print('ready', flush=True)\n"
        "source, output = sample_series_path(), Output(overwrite=True)\n"
        "pipeline.reconstruct_series(source, Path(sys.argv[1]), settings, output=output)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root), "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        one = subprocess.Popen([sys.executable, "-c", program, str(out)], env=environment, stdout=subprocess.PIPE)
        assert one.stdout is not None and one.stdout.readline() == b"ready\n"
        return one

    def finish(out: Path) -> float:
        one, began = start(out), time.monotonic()
        one.communicate()
        assert one.returncode == 0
        return time.monotonic() - began

    seconds, rng = finish(tmp_path / "whole"), np.random.default_rng(seed)
    killed = start(tmp_path / "out")
    time.sleep(rng.uniform(0.1, seconds))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finish(tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_memory_and_cores_decide_how_a_series_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_batches, "process_bytes", lambda: 2**29)

    def divided(count: int, gib: float | None, cores: int = 1) -> tuple[int, int, int]:
        found = division_of(512, count, None if gib is None else gib * 2**30, cores=cores)
        return found.slices, found.workers, found.threads

    assert divided(100, 6) == (8, 1, 1) and divided(3, 6) == (3, 1, 1)
    assert divided(40, 6, 2) == (7, 2, 1)  # three rounds of two batches, and not five batches of eight
    assert divided(8, 6, 2) == (4, 2, 1) and divided(3, 6, 2) == (3, 1, 2)
    assert divided(8, 6, 16) == (4, 2, 8)  # a slice takes as long as four
    assert divided(100, 3, 8) == (5, 3, 2)  # memory for three batches at a time: two cores for each
    assert divided(40, 1.5) == (8, 1, 1)
    with pytest.raises(ValueError, match=r"100 slices of 512 x 512 .* 0.5 GiB that are in use.*--max-memory"):
        divided(100, 1)
    monkeypatch.setattr(series_batches, "free_bytes", lambda: 2**30)
    assert divided(40, None) == (4, 1, 1)
    assert ranges(8, 3) == [(0, 3), (3, 6), (6, 8)]


def test_a_resumed_run_keeps_what_its_bits_depend_on() -> None:
    plan = Division(slices=4, workers=2, threads=2).plan

    def resumed(slices: int, workers: int, threads: int, *, bounded: bool = False) -> tuple[int, int, int]:
        found = Division(slices=slices, workers=workers, threads=threads).resumed(plan, bounded=bounded)
        return found.slices, found.workers, found.threads

    assert resumed(8, 3, 4) == (4, 3, 2) == resumed(8, 3, 4, bounded=True)
    assert resumed(2, 3, 2) == (4, 1, 2)  # batches that would not fit side by side are taken one after the other
    assert resumed(2, 3, 2, bounded=True) == (2, 3, 2)
    assert resumed(8, 3, 1) == (4, 1, 2)
    earlier = Division(slices=8, threads=3).resumed({"slices_at_once": 2}, bounded=False)
    assert earlier == Division(slices=2, threads=3)


def test_seconds_of_a_slice_are_those_of_the_clock() -> None:
    batch = SliceBatch(
        start=0, stop=2, means={}, stds={}, metrics={},
        records={"fbp": {"seconds_per_image": 3.0, "images": 2}, "tv": {"images": 2}},
    )  # fmt: skip
    assert batch.beside(2).records == {"fbp": {"seconds_per_image": 1.5, "images": 2}, "tv": {"images": 2}}
    assert batch.beside(1) == batch


def test_records_of_batches_become_one() -> None:
    common, own = {"name": "range", "text": "outside"}, {"name": "data", "text": "the images at [1] differ"}
    parts = [
        (0, 2, {"method": "x", "images": 2, "seconds_per_image": 1.0, "data_residual": 0.3, "warnings": [common]}),
        (2, 3, {"method": "x", "images": 1, "seconds_per_image": 4.0, "data_residual": 0.6, "warnings": [common, own]}),
    ]
    found = joined_provenance(parts)
    assert found["images"] == 3 and found["seconds_per_image"] == 2.0 and found["method"] == "x"
    assert found["data_residual"] == pytest.approx(((2 * 0.09 + 0.36) / 3) ** 0.5)
    assert [one["text"] for one in found["warnings"]] == ["outside", "of slices 3 to 3: the images at [1] differ"]
    assert joined_provenance(parts[:1]) == parts[0][2]


@pytest.mark.parametrize(
    ("shape", "spacing", "size"),
    [
        ((512, 512), (0.7, 0.7), 512), ((400, 512), (0.7, 0.7), 512), ((768, 768), (0.5, 0.5), 768),
        ((64, 64), (4.0, 4.0), 256), ((2048, 2048), (0.1, 0.1), 1024), ((512, 256), (0.5, 1.0), 256),
        ((300, 300), (0.9, 0.9), 300),
    ],
)  # fmt: skip
def test_the_native_size(shape: tuple[int, int], spacing: tuple[float, float], size: int) -> None:
    assert native_size(shape, spacing) == size


def test_a_series_keeps_its_pixels_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "LEAST_NATIVE", 16)  # a size that takes no time
    before = read_dicom_series(sample_series_path()).slices(0, 3).resampled(8)
    write_nifti(before.volume, tmp_path / "x.nii.gz")
    settings = SparseView(method="fbp", compare=(), views=12, samples=1)
    done = reconstruct_series(tmp_path / "x.nii.gz", tmp_path / "out", settings, chosen=Chosen(slices=(2, 3)))
    after = read_dicom_series(done.folder / "dicom" / "mean")
    assert after.volume.shape == (2, 64, 64)
    np.testing.assert_allclose(after.volume.affine, before.slices(1, 3).volume.affine, atol=1e-4)
    assert done.notes[-1] == "slices 2 to 3 of 3 were taken"
    assert json.loads((done.folder / "run.json").read_text())["settings"]["size"] == 64


def test_the_unmeasured_map_is_joined_from_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, size=16)
    for name, count in (("a", 8), ("b", 3)):
        at_once(monkeypatch, count)
        run(tmp_path / name, settings, output=Output(unmeasured_map=True))
    one, two = (np.asarray(nibabel.load(tmp_path / name / "unmeasured.nii.gz").dataobj) for name in "ab")
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)
