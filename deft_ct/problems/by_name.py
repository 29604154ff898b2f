"""CT problems by the name of their data: what ``--data`` of the commands means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, get_args

from deft_ct.ct.scan import Scan
from deft_ct.datasets.lodopab import LoDoPaB, LoDoPaBSlices, Part
from deft_ct.datasets.names import DataName, parse_data_name
from deft_ct.datasets.packs import read_pack
from deft_ct.datasets.slices import SliceData
from deft_ct.evaluation.problem import Problem
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_lodopab import LoDoPaBProblem
from deft_ct.problems.options import ProblemOptions

__all__ = ["DEFAULT_SCANS", "KINDS", "Kind", "ProblemOptions", "ct_problems"]

DEFAULT_SCANS = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")
"""Scans that are simulated where the data have no observations of their own and none are named."""

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
        return _simulated(read_pack(data, options.every, limit=options.limit), scans, options)
    words, names = ({kind: getattr(k, what) for kind, k in KINDS.items()} for what in ("words", "options"))
    name = parse_data_name(data, words, names)
    return KINDS[name.kind].make(name, scans, options)


def _simulated(slices: SliceData, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    chosen = [Scan.from_name(name) for name in DEFAULT_SCANS] if scans is None else scans
    return [
        CTProblem(slices, scan, seed=options.seed, batch_size=options.batch_size, device=options.device)
        for scan in chosen
    ]


def _lodopab(name: DataName, scans: Sequence[Scan] | None, options: ProblemOptions) -> list[Problem]:
    part = cast(Part, name.word(get_args(Part), "test"))
    if scans is not None:
        return _simulated(LoDoPaBSlices(LoDoPaB(name.root, part), options.every, options.limit), scans, options)
    return [
        LoDoPaBProblem(
            source=LoDoPaB(name.root, part, views=views), every=options.every, limit=options.limit, seed=options.seed,
            batch_size=options.batch_size, device=options.device,
        )
        for views in name.integers("views", (1000,))
    ]  # fmt: skip


KINDS: Mapping[str, Kind] = {
    "lodopab": Kind(
        make=_lodopab, words=get_args(Part), options=("views",),
        help="LoDoPaB-CT: own observations, or every 1000/views-th view of them; test by default",
    ),
}  # fmt: skip
"""Every kind of data that has a name."""
