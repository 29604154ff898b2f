"""How the problems of each kind of named data are made, see :mod:`deft_ct.problems.by_name`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args, overload

from deft_ct.ct.scan import Scan
from deft_ct.datasets.aapm import HELD_OUT, PATIENTS, AAPMChallenge, Dose, Kernel
from deft_ct.datasets.dicom_folder import CTFolder
from deft_ct.datasets.htc2022_set import htc2022_files
from deft_ct.datasets.ldct_images import LDCTImages
from deft_ct.datasets.lodopab import LoDoPaB, LoDoPaBSlices, Part
from deft_ct.datasets.names import DataName
from deft_ct.datasets.sinogram_scan import ScanSetUp, SinogramScan, read_sinogram_scan
from deft_ct.datasets.slices import SliceData, SliceStack, chosen
from deft_ct.datasets.two_detect import TwoDetect
from deft_ct.datasets.walnuts import Walnuts, WalnutScanOptions
from deft_ct.evaluation.problem import Problem
from deft_ct.io.sinograms import SinogramOptions
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_dm4ct import DM4CT_SETTINGS, DM4CTProblem, dm4ct_corrected
from deft_ct.problems.ct_lodopab import LoDoPaBProblem
from deft_ct.problems.ct_measured import HTCProblem, TwoDetectProblem
from deft_ct.problems.ct_sinogram import SinogramProblem
from deft_ct.problems.ct_walnuts import WalnutProblem
from deft_ct.problems.options import DEFAULT_SCANS, ProblemOptions
from deft_ct.runtime.data_split import DataSplit

LODOPAB_WORDS = get_args(Part)
_SPLITS = ("test", "train", "all")
_THICKNESS = ("1mm", "3mm")
T = TypeVar("T")
AAPM_WORDS = (*_SPLITS, *_THICKNESS, *get_args(Kernel))


def simulated(
    slices: SliceData, scans: Sequence[Scan] | None, options: ProblemOptions, scanned: SliceData | None = None
) -> list[Problem]:
    """Simulated scans of slices.

    Args:
        slices: what is judged.
        scans: :data:`~deft_ct.problems.options.DEFAULT_SCANS` when None.
        options: seed, batch size and device.
        scanned: slices that are scanned instead, see :class:`~deft_ct.problems.ct.CTProblem`.
    """
    chosen = [Scan.from_name(name) for name in DEFAULT_SCANS] if scans is None else scans
    return [
        CTProblem(
            slices, scan, seed=options.seed, batch_size=options.batch_size, device=options.device, scanned=scanned
        )
        for scan in chosen
    ]


def lodopab(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """LoDoPaB-CT: its own observations, or other scans of its true images."""
    part = cast(Part, name.word(LODOPAB_WORDS, "test"))
    if scans is not None:
        if "views" in name.options:
            raise ValueError("lodopab: views=... chooses own observations; leave it out to simulate the scans you name")
        return simulated(LoDoPaBSlices(LoDoPaB(name.root, part), options.every, options.limit), scans, options)
    return [
        LoDoPaBProblem(
            source=LoDoPaB(name.root, part, views=views), every=options.every, limit=options.limit, seed=options.seed,
            batch_size=options.batch_size, device=options.device,
        )
        for views in name.integers("views", (1000,))
    ]  # fmt: skip


def aapm(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """Images of the AAPM 2016 challenge: simulated scans, pairs of doses, or the settings of DM4CT."""
    split = name.word(_SPLITS, "test")
    thickness = int(name.word(_THICKNESS, "1mm")[0])
    kernel = cast(Kernel, name.word(get_args(Kernel), "B30"))
    dose = cast(Dose, name.option("dose", "full", get_args(Dose)))
    full = AAPMChallenge(name.root, "full", thickness, kernel)
    patients = _patients(name, full.patients(), split)
    kind: DataSplit | None = None if split == "all" or "patients" in name.options else cast(DataSplit, split)
    every, limit = options.every, options.limit
    slices = full.slices(patients, split=kind, every=every, limit=limit)
    protocols = _dm4ct(name, slices, options)
    if protocols:
        if scans is not None or dose != "full":
            raise ValueError("aapm: the settings of DM4CT say scan and dose: leave out --scan and dose=...")
        return protocols
    pair = None
    if dose == "quarter":
        quarter = AAPMChallenge(name.root, "quarter", thickness, kernel)
        pair = quarter.slices(patients, split=kind, every=every, limit=limit)
    return simulated(slices, scans, options, pair)


def ldct(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """Images of TCIA LDCT-and-Projection-data: simulated scans, or pairs of doses."""
    dose = name.option("dose", "full", ("full", "low"))
    full, low = LDCTImages(name.root, "full"), LDCTImages(name.root, "low")
    patients = _patients(name, full.patients() if dose == "full" else low.patients(), "all")
    slices, pair = (
        data.slices(patients, every=options.every, limit=options.limit) if wanted else None
        for data, wanted in ((full, True), (low, dose == "low"))
    )
    assert slices is not None
    return simulated(slices, scans, options, pair)


def folder(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """CT images of a user's folder, or of a single file of it."""
    size = name.integer("size", 256)
    images = CTFolder(name.root, size=size, every=options.every)
    pairs = [(item, item.group) for item in images]
    pairs = [pairs[n] for n in chosen([group for _, group in pairs], 1, options.limit)]
    stack = SliceStack(f"folder:{name.root.name}", pairs, every=options.every, limit=options.limit)
    return simulated(stack, scans, options)


def _patients(name: DataName, there: Sequence[str], split: Literal["test", "train", "all"] | str) -> list[str]:
    asked = name.options.get("patients")
    if asked is not None:
        wanted = asked.split(",")
    elif split == "test":
        wanted = [HELD_OUT]
    else:
        known = PATIENTS if split == "train" else there
        wanted = [patient for patient in known if patient in there and (split == "all" or patient != HELD_OUT)]
    missing = [patient for patient in wanted if patient not in there]
    if missing or not wanted:
        raise FileNotFoundError(
            f"{name.root} has no such images of {', '.join(missing) or 'any patient'}; it has them of "
            f"{', '.join(there) or 'nobody'}. `deft-ct data check {name.root}` lists what is there"
        )
    return wanted


def _dm4ct(name: DataName, slices: SliceData, options: ProblemOptions) -> list[Problem]:
    found: list[Problem] = []
    for option in ("dm4ct", "dm4ct-corrected"):
        for setting in filter(None, name.options.get(option, "").split(",")):
            if setting not in DM4CT_SETTINGS:
                raise ValueError(f"aapm: {option} must be of {', '.join(DM4CT_SETTINGS)}, got {setting!r}")
            if option == "dm4ct":
                found.append(DM4CTProblem(pack=slices, setting=setting, seed=options.seed, device=options.device))
            else:
                found.append(dm4ct_corrected(slices, setting, options))
    return found


def htc2022_discs(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """Discs of the Helsinki Tomography Challenge 2022."""
    _own_only(name, scans)
    files = htc2022_files(name.root)
    if not files:
        raise FileNotFoundError(f"{name.root} holds no htc2022_*_full.mat or htc2022_*_limited.mat of the challenge")
    judged = [one for one in files if one.segmentation is not None]
    side = name.integer("size", 512)
    wedges: list[float | None] = [float(n) for n in name.integers("degrees", ())] or [None]
    return [
        HTCProblem(
            files=_kept(judged or files, options), side=side, degrees=degrees,
            every=options.every, seed=options.seed, device=options.device,
        )
        for degrees in wedges
    ]  # fmt: skip


def two_detect(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """Slices of 2DeteCT."""
    _own_only(name, scans)
    mode = int(name.option("mode", "2", ("1", "2", "3")))
    source = TwoDetect(name.root, mode)
    side = name.integer("size", 512)
    return [
        TwoDetectProblem(
            source=source, numbers=_kept(source.slices(), options),
            reference_mode=3 if mode == 3 else 2, views=views, side=side, every=options.every, seed=options.seed,
            batch_size=options.batch_size, device=options.device,
        )
        for views in name.integers("views", (3600,))
    ]  # fmt: skip


def walnuts(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """Volumes of walnuts."""
    _own_only(name, scans)
    source = Walnuts(name.root)
    side, bins = name.integer("size", 128), name.integer("bins", 6)
    found: list[Problem] = []
    for views in name.integers("views", (120,)):
        how = WalnutScanOptions(orbits=tuple(name.integers("orbits", (2,))), views=views, bins=bins, side=side)
        judged = set(source.referenced())
        numbers = [n for n in source.numbers(how.orbits) if n in judged]
        found.append(
            WalnutProblem(
                source=source, numbers=_kept(numbers, options), how=how, every=options.every,
                seed=options.seed, device=options.device,
            )
        )  # fmt: skip
    return found


def _kept(items: Sequence[T], options: ProblemOptions) -> list[T]:
    """What is judged of images without patients."""
    return [items[n] for n in chosen([0] * len(items), options.every, options.limit)]


def _own_only(name: DataName, scans: Sequence[Scan] | None) -> None:
    if scans is not None:
        raise ValueError(f"{name.kind} holds measured scans, which are not simulated: leave out --scan")


def sinogram(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """A measured sinogram of a user."""
    _own_only(name, scans)
    given = name.options
    reading = SinogramOptions(
        angles=Path(given["angles"]).expanduser() if "angles" in given else None,
        degrees=_number(name, "degrees", 180.0), ends="ends" in name.words, radians="radians" in name.words,
        counts=_number(name, "counts", None),
    )  # fmt: skip
    center = given.get("center", "middle")
    how = ScanSetUp(
        reading=reading, rings="rings" in name.words, detector_mm=_number(name, "detector", 1.0),
        center="auto" if center == "auto" else "middle" if center == "middle" else _number(name, "center", 0.0),
        source_to_center_mm=_number(name, "sod", None), source_to_detector_mm=_number(name, "sdd", None),
    )  # fmt: skip
    side = name.integer("size", 1) if "size" in given else None
    scan = read_sinogram_scan(name.root, how, side=side)
    kept = scan.sinogram[_kept(range(len(scan.sinogram)), options)]
    part = SinogramScan(kept, scan.geometry, scan.center, scan.raised)
    wanted: list[int | None] = [*name.integers("views", ())] or [None]
    return [
        SinogramProblem(
            label=name.root.name, source=part, views=views, seed=options.seed, batch_size=options.batch_size,
            device=options.device,
        )
        for views in wanted
    ]  # fmt: skip


@overload
def _number(name: DataName, option: str, default: float) -> float: ...


@overload
def _number(name: DataName, option: str, default: None) -> float | None: ...


def _number(name: DataName, option: str, default: float | None) -> float | None:
    text = name.options.get(option)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name.kind}: {option} must be a number, got {text!r}") from None
