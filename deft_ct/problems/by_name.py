"""CT problems by the name of their data: what ``--data`` of the commands means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from deft_ct.ct.scan import Scan
from deft_ct.datasets.names import DataName, parse_data_name
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.problem import Problem
from deft_ct.problems import ct_kinds
from deft_ct.problems.options import DEFAULT_SCANS, ProblemOptions

__all__ = ["DEFAULT_SCANS", "KINDS", "Kind", "ProblemOptions", "ct_problems"]

Make = Callable[[DataName, "Sequence[Scan] | None", ProblemOptions], list[Problem]]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of data.

    Args:
        make: the problems of such data.
        words: that may follow the folder.
        options: names of the options that may follow the folder.
        help: what it is, in one line.
    """

    make: Make
    words: Sequence[str] = ()
    options: Sequence[str] = ()
    help: str


def ct_problems(data: str, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    """The problems of a data set.

    Args:
        data: ``KIND:FOLDER[:WORD...][:OPTION=VALUE...]`` with a kind of :data:`KINDS`; or a slice dataset, see
            :func:`~deft_ct.datasets.packs.pack_path`.
        scans: simulated scans; when None, the data's own observations where they have them, else
            :data:`DEFAULT_SCANS`.
        options: which images, and how.

    Raises:
        FileNotFoundError: the data are not there.
        ReadError: a file of the data is damaged or of another kind.
        ValueError: a name of another form.
    """
    if data.partition(":")[0] not in KINDS or ":" not in data:
        return ct_kinds.simulated(read_pack(data, options.every, limit=options.limit), scans, options)
    words, names = ({kind: getattr(k, what) for kind, k in KINDS.items()} for what in ("words", "options"))
    name = parse_data_name(data, words, names)
    return KINDS[name.kind].make(name, scans, options)


KINDS: Mapping[str, Kind] = {
    "lodopab": Kind(
        make=ct_kinds.lodopab, words=ct_kinds.LODOPAB_WORDS, options=("views",),
        help="LoDoPaB-CT: own observations, or every 1000/views-th view of them; test by default",
    ),
    "aapm": Kind(
        make=ct_kinds.aapm, words=ct_kinds.AAPM_WORDS, options=("dose", "patients", "dm4ct", "dm4ct-corrected"),
        help="AAPM 2016 challenge: images of L506 (test), of the other nine (train) or all. dose=quarter scans the "
        "quarter-dose images. The full dose judges them. dm4ct=i,ii,... takes DM4CT's protocols as published. "
        "dm4ct-corrected=i,ii,... corrects them",
    ),
    "ldct": Kind(
        make=ct_kinds.ldct, options=("dose", "patients"),
        help="TCIA LDCT-and-Projection-data: images; dose=low scans the low-dose images and judges with the full dose",
    ),
    "2detect": Kind(
        make=ct_kinds.two_detect, options=("mode", "views", "size"),
        help="2DeteCT: measured fan-beam scans of mode 1, 2 (default) or 3, judged against the reference images",
    ),
    "walnut": Kind(
        make=ct_kinds.walnuts, options=("orbits", "views", "bins", "size"),
        help="walnuts of Der Sarkissian et al. (2019): measured cone beams with the geometry of each view. The "
        "reference is that of all orbits. orbits=2 is the default; size= gives the voxels along each axis",
    ),
    "htc2022": Kind(
        make=ct_kinds.htc2022_discs, options=("degrees", "size"),
        help="Helsinki Tomography Challenge 2022: measured wedges, judged by the challenge's score",
    ),
    "sinogram": Kind(
        make=ct_kinds.sinogram, words=("ends", "radians", "rings"),
        options=("angles", "degrees", "counts", "center", "detector", "sod", "sdd", "views", "size"),
        help="a measured sinogram (.npy, .npz, .mat, .tif, or .nxs of CIL with its geometry). Some views are judged "
        "against the image of all. rings removes stripes. center=auto finds the axis. counts=N is the open beam. sod=, "
        "sdd= and detector= are in mm",
    ),
    "folder": Kind(
        make=ct_kinds.folder, options=("size",),
        help="CT images of a folder: DICOM series, NIfTI, HDF5, averaged to size x size pixels (256 by default)",
    ),
}  # fmt: skip
"""Every kind of data that has a name.

:meta hide-value:
"""
