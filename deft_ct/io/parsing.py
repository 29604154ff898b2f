"""The boundary to the libraries that parse files: whatever they raise leaves as one kind of error with the file's name.

Parsers of damaged files raise almost anything (pydicom alone: twenty types), so that a list of types would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deft_ct.io.errors import ReadError
from deft_ct.runtime.printable import printable


@contextmanager
def parsing(path: str | Path, what: str, *, member: str | None = None) -> Iterator[None]:
    """Turn every error of a parser into a :class:`ReadError`.

    Args:
        path: the file at hand.
        what: what it should be, for example "a picture".
        member: name of the part of an archive at hand.

    Raises:
        ReadError: anything was raised but an interruption; a ReadError passes as it is.
    """
    part = "" if member is None else f"member {printable(member)}: "
    try:
        yield
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(path, f"{part}{what} would need more memory than there is; is it damaged?") from error
    except RecursionError as error:
        raise ReadError(path, f"{part}it is nested deeper than any sound file; is it damaged?") from error
    except Exception as error:
        reason = printable(str(error).split("\n", 1)[0]) or type(error).__name__
        raise ReadError(path, f"{part}it cannot be read as {what} ({reason}); is it complete? Copy it again") from error
