"""The one family of errors that every reader of a file raises."""

from __future__ import annotations

from pathlib import Path


class ReadError(ValueError):
    """A file that cannot be read as what it should be.

    Args:
        path: the file (or folder).
        problem: what is wrong, and what to do where that is known.

    Attributes:
        path: the file, as text.
        problem: the message without the file's name.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = str(path)
        self.problem = problem

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        """Rebuilt from its two arguments when it crosses a process, which the message alone would not allow."""
        return type(self), (self.path, self.problem)
