"""Lists of texts in HDF5 files, read by the child process of :mod:`deft_ct.io.untrusted` within limits."""

from __future__ import annotations

from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits
from deft_ct.io.reading_process import answering
from deft_ct.io.untrusted import BASE_BYTES, HDF5File

TEXTS_BYTES = 16 * 2**20
"""Most texts of a list, and most bytes of all of them."""
_SLOWEST_TEXT = 1e-3  # seconds


def read_texts(file: HDF5File, name: str) -> list[str]:
    """The texts of a list, of fixed or of any length; bytes that are not UTF-8 become replacement characters.

    Args:
        file: the file.
        name: of the dataset.

    Raises:
        ReadError: it is not a list of texts, lies in another file, is damaged, or exceeds the limits: 64 KiB for each
            text, and :data:`TEXTS_BYTES` for all.
    """
    count, limits = file.number_of_texts(name), current_limits()
    if count > TEXTS_BYTES:
        raise ReadError(file.path, f"'{name}' declares {count} texts; at most {TEXTS_BYTES} are read")
    request = {
        "do": "texts", "path": str(file.path.absolute()), "name": name, "shape": [count], "bytes": TEXTS_BYTES,
        "seconds": limits.seconds + count * _SLOWEST_TEXT, "memory": BASE_BYTES,
    }  # fmt: skip
    with answering(file.path, request, "cannot be read as HDF5") as child:
        found = [str(text) for message in child.messages() for text in message["texts"]]
    if len(found) != count:
        raise ReadError(file.path, f"'{name}' has {len(found)} texts of the {count} that it declares")
    return found
