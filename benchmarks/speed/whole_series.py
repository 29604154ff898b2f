"""A whole CT series by the command: seconds, memory, and whether a run that was killed gives the same files.

A series of DICOM is lengthened by copies of its slices that follow below. ``deft-ct reconstruct`` works on it with its
default method in a process of its own. Its processor seconds and its largest resident memory are those that the system
has counted. With ``--kills`` a part of the series is then reconstructed with a kill at a random moment, and again until
it is done. Its pixels, identifiers, NIfTI files and pictures must equal the results of an unbroken run to the bit.

Run: python benchmarks/speed/whole_series.py $DEFT_CT_DATA/dicom/LIDC-IDRI --kills 5 --out benchmarks/results
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import generate_uid

from deft_ct.evaluation.store import Record, write_result
from deft_ct.evaluation.tables import markdown_table
from deft_ct.runtime.machine import processor_name

PROGRAM = "from deft_ct.cli import app; app()"
UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept")
_MIB = 1024.0


def lengthened(source: Path, target: Path, count: int) -> None:
    """Write a series of ``count`` slices: those of ``source`` in turn, each at the next place along the axis."""
    images = sorted(
        (pydicom.dcmread(path) for path in source.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2]
    )
    step = float(images[1].ImagePositionPatient[2]) - float(images[0].ImagePositionPatient[2])
    first = float(images[0].ImagePositionPatient[2])
    target.mkdir(parents=True)
    for k in range(count):
        image = images[k % len(images)]
        uid = generate_uid(entropy_srcs=[str(image.SeriesInstanceUID), str(k)])
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
        image.ImagePositionPatient[2] = first + k * step
        image.SliceLocation, image.InstanceNumber = first + k * step, k + 1
        image.save_as(target / f"{k:03d}.dcm")


def command(series: Path, out: Path, options: list[str]) -> list[str]:
    """The reconstruction of a series."""
    return [sys.executable, "-c", PROGRAM, "reconstruct", str(series), "--out", str(out), "--no-progress", *options]


def timed(arguments: list[str]) -> Record:
    """Run a command; its seconds and largest memory."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds, "user_seconds": after.ru_utime - before.ru_utime,
        "system_seconds": after.ru_stime - before.ru_stime, "peak_mib": after.ru_maxrss / _MIB,
    }  # fmt: skip


def content(folder: Path) -> dict[str, Any]:
    """Everything that was written but for times: of DICOM pixels, places and identifiers, of the record the metrics."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".dcm":
            image = pydicom.dcmread(path)
            found[name] = (bytes(image.PixelData), *(str(image.get(uid)) for uid in UIDS))
        elif path.suffix == ".gz":
            found[name] = gzip.decompress(path.read_bytes())
        elif path.suffix == ".png":
            found[name] = path.read_bytes()
        else:
            found[name] = path.is_file()
    found["metrics"] = [row["metrics"] for row in json.loads((folder / "run.json").read_text())["metrics"]]
    return found


def killed(series: Path, work: Path, options: list[str], seconds: float, rng: random.Random) -> Record:
    """Kill a run at a random moment, and finish it."""
    moment = rng.uniform(0, seconds)
    process = subprocess.Popen(command(series, work, options), stdout=subprocess.DEVNULL)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    parts = len(list(work.parent.glob(f"{work.name}.unfinished/part-*")))
    done = work.is_dir()  # the folder appears when all is written
    again = {"user_seconds": 0.0} if done else timed(command(series, work, options))
    return {"killed_after": moment, "was_killed": not done, "parts": parts, "user_seconds": again["user_seconds"]}


def markdown(record: Record) -> str:
    """Seconds and memory, and what the kills have shown."""
    whole = record["whole"]
    cells = [f"{whole[key]:.0f}" for key in ("seconds", "user_seconds", "system_seconds")]
    lines = [
        "# A whole series",
        markdown_table(
            ["slices", "pixels of a side", "wall s", "user s", "system s", "peak memory (GiB)"],
            [[str(record["slices"]), str(record["side"]), *cells, f"{whole['peak_mib'] / 1024:.2f}"]],
            align="rrrrrr",
        ),
        f"`deft-ct reconstruct` with {' '.join(record['options']) or 'its defaults'}: mean and spread of DEFT, "
        f"beside the methods that it is compared with. {record['processor']}, beside other work (load "
        f"{record['load']:.1f} at the start).",
    ]  # fmt: skip
    if kills := record["kills"]:
        hit = [one for one in kills if one["was_killed"]]
        same = sum(one["same"] for one in kills)
        lines.append(
            f"Killed at {len(hit)} moments of its work (seed {record['seed']}, {record['killed_slices']} slices, "
            f"{' '.join(record['killed_options'])}) and run again: the same files to the bit in {same} of {len(kills)} "
            "runs. "
            f"Stored batches at the kills: {', '.join(str(one['parts']) for one in hit)}."
        )
    return "\n\n".join([*lines, "Made by `benchmarks/speed/whole_series.py`."]) + "\n"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of a DICOM series")
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--kills", type=int, default=0, help="kills before the end of the work")
    parser.add_argument("--killed-slices", type=int, default=6)
    parser.add_argument("--killed-option", action="append", default=[], help="option of the runs that are killed")
    parser.add_argument("--option", action="append", default=[], help="option of the command, such as --compare=fbp")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengthened(arguments.source, folder / "series", arguments.slices)
        load = os.getloadavg()[0]
        record: Record = {
            "slices": arguments.slices, "options": arguments.option, "processor": processor_name(), "load": load,
            "side": int(pydicom.dcmread(folder / "series" / "000.dcm", stop_before_pixels=True).Rows),
            "whole": timed(command(folder / "series", folder / "whole", arguments.option)), "kills": [],
            "seed": arguments.seed, "killed_slices": arguments.killed_slices, "killed_options": arguments.killed_option,
        }  # fmt: skip
        print(markdown(record), flush=True)
        write_result(arguments.out, "whole_series", record, markdown(record))  # the kills take long
        if arguments.kills:
            rng, options = random.Random(arguments.seed), arguments.killed_option
            lengthened(arguments.source, folder / "short", arguments.killed_slices)
            unbroken = timed(command(folder / "short", folder / "unbroken", options))["seconds"]
            expected = content(folder / "unbroken")
            while sum(one["was_killed"] for one in record["kills"]) < arguments.kills:
                one = killed(folder / "short", folder / "killed", options, unbroken, rng)
                record["kills"].append(one | {"same": content(folder / "killed") == expected})
                shutil.rmtree(folder / "killed")
                print(record["kills"][-1], flush=True)
    write_result(arguments.out, "whole_series", record, markdown(record))


if __name__ == "__main__":
    main()
