"""Is a folder of LoDoPaB-CT complete?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from deft_ct.datasets.findings import DataFindings
from deft_ct.datasets.lodopab import SAMPLES, SAMPLES_PER_FILE, Part, file_count, lodopab_file, read_patients

_NAME = re.compile(r"(?P<kind>ground_truth|observation)_(?P<part>[a-z]+)_\d{3}\.hdf5")


def check_lodopab(root: Path) -> DataFindings | None:
    """Every file of each part of which some file is there; None where there is no file of the data set."""
    if not root.is_dir():
        return None
    names = [match for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    parts = [part for part in get_args(Part) if part in {name["part"] for name in names}]
    if not parts:
        return None
    found = DataFindings("LoDoPaB-CT")
    for part in parts:
        _check_part(root, part, found)
        found.commands.append(f"deft-ct compare --data lodopab:{root}:{part} --every 100 --out OUT")
    expected = {file.path for file in found.files}
    for path in sorted(root.iterdir()):
        if path.name not in expected and not path.name.startswith("."):
            found.add(root, path, "left out", "not of the data set")
    return found


def _check_part(root: Path, part: Part, found: DataFindings) -> None:
    count = file_count(part)
    kinds = ["observation", "ground_truth"]
    if part == "challenge" and not any(root.glob("ground_truth_challenge_*.hdf5")):
        found.notes.append("the challenge set has no ground truth here: it can be submitted, not judged")
        kinds = kinds[:1]
    sound = 0
    for kind in kinds:
        for number in range(count):
            rows = min(SAMPLES_PER_FILE, SAMPLES[part] - number * SAMPLES_PER_FILE)

            def describe(path: Path, kind: str = kind, rows: int = rows) -> str:
                held: int = lodopab_file(path, kind).item("data").shape[0]
                if held < rows:
                    raise ValueError(f"holds {held} samples, expected {rows}; download it again")
                return f"{rows} samples" + (f" ({held} rows)" if held > rows else "")

            sound += found.look(root, root / f"{kind}_{part}_{number:03d}.hdf5", describe)
    patients = root / f"patient_ids_rand_{part}.csv"
    if patients.exists():
        found.look(root, patients, lambda path: f"patients of {len(read_patients(path, part)):,} samples")
    else:
        found.notes.append(f"{patients.name} is not there: intervals over patients cannot be given")
    found.notes.append(f"{part}: {sound} of {count * len(kinds)} files are sound; {SAMPLES[part]:,} samples in all")
