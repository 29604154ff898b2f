"""What a look at a folder or file of data finds, file by file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

State = Literal["found", "missing", "damaged", "left out"]
T = TypeVar("T")


@dataclass(frozen=True)
class FileFinding:
    """One file, or one folder that counts as a whole.

    Attributes:
        path: below the folder that was looked at.
        state: "left out" is what belongs to no known layout; it makes nothing incomplete.
        what: what it holds, or what is wrong.
    """

    path: str
    state: State
    what: str


@dataclass(frozen=True)
class DataFindings:
    """What was found.

    Attributes:
        kind: of the data, in words.
        files: every file that is there or should be.
        notes: what is worth knowing and no fault.
        commands: what to do with the data.
    """

    kind: str
    files: list[FileFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or damaged, and something was found."""
        states = {file.state for file in self.files}
        return "found" in states and not states & {"missing", "damaged"}

    def add(self, root: Path, path: Path, state: State, what: str) -> None:
        """Note a file."""
        self.files.append(FileFinding(str(path.relative_to(root)) if path != root else path.name, state, what))

    def look(self, root: Path, path: Path, describe: Callable[[Path], str]) -> bool:
        """Note a file that should be there; whether it is and is sound.

        Args:
            root: the folder that is looked at.
            path: the file.
            describe: says what it holds; its ValueError or OSError is what is wrong.
        """
        if not path.exists():
            self.add(root, path, "missing", "")
            return False
        try:
            what = describe(path)
        except (ValueError, OSError) as error:
            self.add(root, path, "damaged", str(error).removeprefix(f"{path} ").removeprefix(f"{path}: "))
            return False
        self.add(root, path, "found", what)
        return True
