"""Write a restored photograph: the picture, the degraded one and a record, as a folder or beside each other."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_ct.evaluation.metrics import psnr, ssim
from deft_ct.io.photographs import Photograph, write_photograph
from deft_ct.reconstruction import Reconstruction
from deft_ct.report.figures import FOOTER_OF_PHOTOGRAPHS
from deft_ct.runtime.atomic import atomic_file, atomic_folder, check_writable, reserve_folder
from deft_ct.runtime.locks import lock_beside
from deft_ct.runtime.plain_values import plain
from deft_ct.workflows.series_output import PROGRAM, RUN_RECORD, file_sha256, is_own_file

if TYPE_CHECKING:
    from deft_ct.workflows.restore import RestoreSettings

RESTORED, DEGRADED = "restored.png", "degraded.png"
PICTURE = ".png"
"""Ending of an output that is a picture file and no folder."""
_PACKAGES = ("deft-ct", "torch", "numpy", "scipy", "pillow", "scikit-image")
_SMALLEST_SSIM = 7


@dataclass(frozen=True, kw_only=True)
class RestoredPhotograph:
    """A restored picture and what belongs to it.

    Attributes:
        source: the picture file.
        target: a folder, or a picture file.
        settings: degradation and method.
        truth: the true picture; None if the degraded one was given.
        degraded: the degraded picture; None where the data are no picture.
        restored: the result.
        result: the reconstruction behind it.
        notes: what was done to the picture.
    """

    source: Path
    target: Path
    settings: RestoreSettings
    truth: Photograph | None
    degraded: Photograph | None
    restored: Photograph
    result: Reconstruction
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[str, Path]:
        """What is written: the picture, the degraded picture and the record."""
        return output_files(self.target)

    @property
    def metrics(self) -> dict[str, float]:
        """PSNR (dB) and SSIM against the true picture at the data range 2 of [-1, 1]; empty without one."""
        if self.truth is None:
            return {}
        found, true = (p.pixels.clamp(-1, 1)[None].double().numpy() for p in (self.restored, self.truth))
        values = {"psnr_db": float(psnr(found, true, data_range=2.0)[0])}
        if min(true.shape[-2:]) >= _SMALLEST_SSIM:
            values["ssim"] = float(ssim(found, true, data_range=2.0)[0])
        return values


def output_files(target: Path) -> dict[str, Path]:
    """``restored``, ``degraded`` and ``record`` -> path, for a folder or a picture file."""
    if target.suffix.lower() != PICTURE:
        names = {"restored": RESTORED, "degraded": DEGRADED, "record": RUN_RECORD}
        return {what: target / name for what, name in names.items()}
    return {
        "restored": target, "degraded": target.with_name(f"{target.stem}.degraded{PICTURE}"),
        "record": target.with_name(f"{target.stem}.{RUN_RECORD}"),
    }  # fmt: skip


@contextlib.contextmanager
def reserve_output(out: str | Path, *, overwrite: bool, source: str | Path) -> Iterator[Path]:
    """Hold the output, before any long work.

    Args:
        out: a folder, or a name that ends in ``.png``.
        overwrite: whether an earlier result may be replaced.
        source: the picture that is read, which is never written.

    Yields:
        The output as an absolute path.

    Raises:
        FileExistsError: files are in the way, and may not be replaced or are not of this program.
        InUseError: another process writes there.
        PermissionError: nothing can be written there.
        ValueError: the output is the input.
    """
    target = Path(out).expanduser().absolute()
    if target.suffix.lower() != PICTURE or target.is_dir():
        with reserve_folder(out, overwrite=overwrite) as folder:
            if Path(source).absolute() in output_files(folder).values():
                raise ValueError(f"the output {folder} holds the picture that is read: name another one")
            yield folder
        return
    check_writable(target.parent, overwrite=True)
    if target.resolve() == Path(source).expanduser().resolve():
        raise ValueError(f"the output {target} is the picture that is read: name another one")
    _check_files(target, overwrite)
    with lock_beside(target):
        _check_files(target, overwrite)
        yield target


def _check_files(target: Path, overwrite: bool) -> None:
    files = output_files(target)
    there = [path for path in files.values() if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} is there already: name another file, or replace it with --overwrite")
    for path in there:
        if not _is_own(path, files["record"]):
            raise FileExistsError(f"{path} was not written by {PROGRAM}, so --overwrite leaves it: name another file")


def _is_own(path: Path, record: Path) -> bool:
    """Whether the record beside a picture lists it with its present content."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        files = content["files"] if content["program"] == PROGRAM else {}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return path == record or files.get(path.name) == file_sha256(path)


def write_restored(restored: RestoredPhotograph, *, overwrite: bool = False) -> None:
    """Write ``restored.png``, ``degraded.png`` and ``run.json`` to a folder that appears whole.

    Where the target is a picture ``NAME.png``, this is the restored one; ``NAME.degraded.png`` and ``NAME.run.json``
    lie beside it. Each appears whole, the record first and the restored picture last.

    Args:
        restored: what is written.
        overwrite: replace an earlier result.

    Raises:
        FileExistsError: files have appeared in the way.
        WriteError: a file cannot be written.
    """
    target = restored.target
    if target.suffix.lower() != PICTURE or target.is_dir():
        with atomic_folder(target, overwrite=overwrite, is_own=is_own_file) as work:
            _write(restored, output_files(work))
        return
    with contextlib.ExitStack() as stack:  # left in the opposite order: the restored picture comes last
        files = {
            what: stack.enter_context(atomic_file(path))
            for what, path in output_files(target).items()
            if what != "degraded" or restored.degraded is not None
        }
        _write(restored, files)


def _write(restored: RestoredPhotograph, files: dict[str, Path]) -> None:
    """Write to these paths; the record lists the files by their final names."""
    pictures = {"restored": restored.restored, "degraded": restored.degraded}
    for what, picture in pictures.items():
        if picture is not None:
            write_photograph(picture, files[what])
    names = {restored.files[what].name: file_sha256(files[what]) for what, one in pictures.items() if one is not None}
    record = _record(restored) | {"files": names}
    files["record"].write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _record(restored: RestoredPhotograph) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as plain values."""
    settings = restored.settings
    inputs = {"picture": restored.source, "mask": settings.mask, "kernel": settings.kernel}
    return {
        "program": PROGRAM,
        "notice": FOOTER_OF_PHOTOGRAPHS,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "source": {
            what: {"name": Path(path).name, "sha256": file_sha256(Path(path))}
            for what, path in inputs.items()
            if path is not None
        },
        "settings": asdict(settings),
        "measurement": restored.result.provenance["measurement"],
        "data_residual": restored.result.provenance["data_residual"],
        "reconstruction": restored.result.provenance,
        "metrics": restored.metrics,
        "metrics_are": "of the written picture against the true one, data range 2 on [-1, 1]",
        "notes": list(restored.notes),
    }
