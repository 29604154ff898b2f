"""Reading LoDoPaB-CT: our reader of rows and our samples against raw rows of h5py, and FBP against ODL's.

    python benchmarks/speed/lodopab_reading.py FOLDER            # a folder with the test part
    python benchmarks/speed/lodopab_reading.py FOLDER --odl 4    # FBP, too (needs odl and astra-toolbox)

All read the same rows in turn, in the order of a sparse benchmark (every 100th). A sample is a row in physical units
whose values were checked to be finite. The page cache is warm, so that the cost of the reader is seen and not that of
the disk. Times are the least of several rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.lodopab import IMAGE_SHAPE, MU_MAX, SAMPLES_PER_FILE, LoDoPaB
from deft_ct.io.hdf5_rows import HDF5Rows
from deft_ct.io.untrusted import HDF5File
from deft_ct.operators.ct import fbp
from deft_ct.operators.ct.convert import to_odl
from deft_ct.problems.ct_lodopab import measure_lodopab


def least_seconds(work: Callable[[int], object], samples: list[int], rounds: int) -> float:
    """Seconds for one sample, the least of several rounds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for n in samples:
            work(n)
        times.append((time.perf_counter() - start) / len(samples))
    return min(times)


def compare_reading(root: Path, samples: list[int], rounds: int) -> None:
    """Print milliseconds of a row and of a sample."""
    data = LoDoPaB(root, "test")
    paths = {n: data.file("observation", n // SAMPLES_PER_FILE) for n in samples}
    files = {n: h5py.File(path)["data"] for n, path in paths.items()}
    rows = {n: HDF5Rows(HDF5File(path), "data") for n, path in paths.items()}
    for n in samples:
        assert np.allclose(data.observation(n), files[n][n % SAMPLES_PER_FILE] * np.float32(MU_MAX))
    raw = least_seconds(lambda n: files[n][n % SAMPLES_PER_FILE], samples, rounds)
    print(f"n = {len(samples)}, chunks {files[samples[0]].chunks}: a row by h5py {1e3 * raw:.2f} ms")
    for label, work in (("row", lambda n: rows[n].read(n % SAMPLES_PER_FILE)), ("sample", data.observation)):
        ours = least_seconds(work, samples, rounds)
        print(f"our {label}: {1e3 * ours:.2f} ms, {ours / raw:.2f} times as long")


def compare_fbp(root: Path, samples: list[int], filters: list[str]) -> None:
    """Print the mean PSNR of our FBP and of ODL's on the same observations."""
    import odl

    # `to_odl` keeps our order of axes, so that images can be compared as they are.
    data = LoDoPaB(root, "test")
    geometry = data.geometry
    space, scan = to_odl(geometry)
    transform = odl.applications.tomo.RayTransform(space, scan, impl="astra_cpu")
    names = {"ram-lak": "Ram-Lak", "hann": "Hann", "shepp-logan": "Shepp-Logan"}
    for name in filters:
        inverse = odl.applications.tomo.fbp_op(transform, filter_type=names[name], padding=True)
        found: dict[str, list[float]] = {"ours": [], "odl": []}
        for n in samples:
            y, truth = data.observation(n), data.truth(n)
            theirs = inverse(y).data
            images = {"ours": fbp(torch.from_numpy(y)[None, None], geometry, name)[0, 0].numpy(), "odl": theirs}
            for label, image in images.items():
                hu = (HounsfieldScale().to_hu(np.asarray(v, np.float64))[None] for v in (image, truth))
                found[label].append(measure_lodopab(*hu, np.ones((1, *IMAGE_SHAPE), bool))["psnr"][0])
        ours, theirs_mean = np.mean(found["ours"]), np.mean(found["odl"])
        print(f"{name}, n = {len(samples)}: PSNR ours {ours:.3f} dB, ODL {theirs_mean:.3f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--odl", type=int, default=0, metavar="N", help="compare FBP on N samples")
    arguments = parser.parse_args()
    chosen = list(range(0, 3553, arguments.every))
    compare_reading(arguments.root, chosen, arguments.rounds)
    if arguments.odl:
        compare_fbp(arguments.root, chosen[: arguments.odl], ["hann", "ram-lak"])


if __name__ == "__main__":
    main()
