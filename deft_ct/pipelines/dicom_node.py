"""A DICOM node: series that are sent to it come back reconstructed. For tests beside an archive such as Orthanc.

    python -m deft_ct.pipelines.dicom_node --work FOLDER --send-to ORTHANC@127.0.0.1:4242

Research only: it simulates a sparse-view scan of every series, and its results are marked as derived. By default it
listens on this machine alone. As usual for DICOM, nothing is encrypted and no password is asked for: put it behind what
protects your archive.

A series is complete when the association that sent it ends. It is then reconstructed in the background
(:func:`~deft_ct.workflows.reconstruct_series.reconstruct_series`), and the derived series are sent on. Received images
are kept under ``FOLDER/received``, results under ``FOLDER/results``. A failure is written to
``FOLDER/results/SERIES.failed.txt``. Nothing is deleted.
"""

from __future__ import annotations

import argparse
import logging
import queue
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ParametricMapStorage

from deft_ct.runtime.atomic import atomic_file, write_text
from deft_ct.runtime.extras import optional_library
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

optional_library("pynetdicom", "dicom-node")
from pynetdicom import ALL_TRANSFER_SYNTAXES, evt  # noqa: E402
from pynetdicom.ae import ApplicationEntity  # noqa: E402

__all__ = ["Address", "DicomNode"]

_LOG = logging.getLogger(__name__)
_UID = re.compile(r"[0-9.]{1,64}")
_OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0xA700, 0xC000
_VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Address:
    """Where a node listens.

    Args:
        title: application entity title, at most 16 characters.
        host: name or address.
        port: from 1 to 65535; 0, for listening alone, takes any that is free.
    """

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``TITLE@HOST:PORT``.

        Raises:
            ValueError: it is written otherwise.
        """
        found = re.fullmatch(r"([^@\s]{1,16})@([^@\s:]+):(\d{1,5})", text)
        if found is None or not 0 < int(found[3]) < 2**16:
            raise ValueError(f"expected TITLE@HOST:PORT, such as ORTHANC@127.0.0.1:4242, got {text!r}")
        return cls(found[1], found[2], int(found[3]))


@dataclass
class DicomNode:
    """Receives CT series, reconstructs them and sends the results on.

    Use it as a context: it listens inside. Series are worked on one after the other.

    Args:
        work: folder for what is received and for the results.
        settings: scan and method.
        output: optional files of a result; ``output.dicom`` is needed for sending.
        send_to: where the derived series go; None keeps them in the folder.
        listen: own title, host and port.
        accept: titles that may send; all when empty.
    """

    work: Path
    settings: SparseView = field(default_factory=SparseView)
    output: Output = field(default_factory=Output)
    send_to: Address | None = None
    listen: Address = Address("DEFTCT", "127.0.0.1", 11112)
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._waiting: queue.Queue[str | None] = queue.Queue()
        self._open: dict[int, set[str]] = {}
        self._closing = threading.Condition()
        self._worker = threading.Thread(target=self._work, name="deft-ct reconstruction", daemon=True)

    def __enter__(self) -> Self:
        entity = ApplicationEntity(self.listen.title)
        entity.require_calling_aet = list(self.accept)
        entity.add_supported_context(_VERIFICATION)
        for kind in (CTImageStorage, EnhancedCTImageStorage):
            entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_CLOSE, self._closed)]
        where = (self.listen.host, self.listen.port)
        server: Any = entity.start_server(where, block=False, evt_handlers=handlers)
        self._server = server
        self.listen = replace(self.listen, port=server.socket.getsockname()[1])
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._waiting.put(None)
        self._worker.join()

    def finish(self) -> None:
        """Wait until every association that sent an image has ended and every series that was received is done."""
        with self._closing:  # a sender goes on before its association has ended here
            self._closing.wait_for(lambda: not self._open)
        self._waiting.join()

    def _store(self, event: Any) -> int:
        """Keep one image; the status is that of C-STORE (PS3.4, table B.2-1)."""
        try:
            image = event.dataset
            image.file_meta = event.file_meta
            series, name = str(image.SeriesInstanceUID), str(image.SOPInstanceUID)
        except Exception:  # noqa: BLE001  (what was sent is no DICOM image)
            return _CANNOT_UNDERSTAND
        if not (_UID.fullmatch(series) and _UID.fullmatch(name)):  # they become names of files
            return _CANNOT_UNDERSTAND
        folder = self.work / "received" / series
        try:
            with atomic_file(folder / f"{name}.dcm") as unfinished:
                image.save_as(unfinished, enforce_file_format=True)
        except OSError as error:
            _LOG.error("an image could not be kept: %s", error)
            return _OUT_OF_RESOURCES
        with self._closing:
            self._open.setdefault(id(event.assoc), set()).add(series)
        return 0

    def _closed(self, event: Any) -> None:
        """The association has ended: what it sent is complete."""
        with self._closing:
            for series in sorted(self._open.pop(id(event.assoc), ())):
                self._waiting.put(series)
            self._closing.notify_all()

    def _work(self) -> None:
        while (series := self._waiting.get()) is not None:
            try:
                self._reconstruct(series)
            except Exception as error:  # noqa: BLE001  (one series does not stop the node)
                _LOG.error("series %s failed: %s", series, error)
                failed = self.work / "results" / f"{series}.failed.txt"
                failed.parent.mkdir(parents=True, exist_ok=True)
                write_text(failed, f"{type(error).__name__}: {error}\n")
            finally:
                self._waiting.task_done()

    def _reconstruct(self, series: str) -> None:
        out = self.work / "results" / series
        # The same series again may have more images by now.
        reconstruct_series(
            self.work / "received" / series, out, self.settings, output=replace(self.output, overwrite=True)
        )
        _LOG.info("series %s is reconstructed", series)
        if self.send_to is not None:
            send(sorted((out / "dicom").rglob("*.dcm")), self.send_to, sender=self.listen.title)


def send(files: Sequence[Path], to: Address, *, sender: str = "DEFTCT") -> None:
    """Send DICOM files by C-STORE.

    Args:
        files: CT images and parametric maps.
        to: the receiver.
        sender: own title.

    Raises:
        ConnectionError: there is no connection, or an image was not taken.
    """
    entity = ApplicationEntity(sender)
    for kind in (CTImageStorage, ParametricMapStorage):
        entity.add_requested_context(kind)
    association = entity.associate(to.host, to.port, ae_title=to.title)
    if not association.is_established:
        raise ConnectionError(f"no DICOM connection to {to.title} at {to.host}:{to.port}")
    try:
        for path in files:
            status = association.send_c_store(pydicom.dcmread(path))
            if "Status" not in status or status.Status != 0:
                raise ConnectionError(f"{to.title} did not take {path.name} (status {status.get('Status', 'none')})")
    finally:
        association.release()


def run_node(argv: Sequence[str] | None = None) -> None:
    """Run a node until it is interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for what is received and for the results")
    parser.add_argument("--send-to", type=Address.parse, help="TITLE@HOST:PORT of the archive; else results are kept")
    parser.add_argument("--listen", type=Address.parse, default=DicomNode.listen, help="own TITLE@HOST:PORT")
    parser.add_argument("--accept", nargs="*", default=[], metavar="TITLE", help="who may send; all if left out")
    parser.add_argument("--method", default="deft", help="of the reconstruction")
    parser.add_argument("--views", type=int, default=60, help="of the simulated scan")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    node = DicomNode(
        arguments.work, SparseView(method=arguments.method, views=arguments.views), send_to=arguments.send_to,
        listen=arguments.listen, accept=tuple(arguments.accept),
    )  # fmt: skip
    with node:
        _LOG.info("listening as %s at %s:%d; research only", *(vars(node.listen).values()))
        threading.Event().wait()


if __name__ == "__main__":
    run_node()
