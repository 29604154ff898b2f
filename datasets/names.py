"""Data by name: ``KIND:ROOT[:WORD...][:OPTION=VALUE...]``, for example ``lodopab:/data/lodopab:test:views=50``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class DataName:
    """A name in its parts.

    Attributes:
        kind: what the data are, for example ``"lodopab"``.
        root: their folder.
        words: what else is said, for example the part.
        options: by name.
    """

    kind: str
    root: Path
    words: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def word(self, allowed: Sequence[str], default: str) -> str:
        """The one word of several that exclude each other, or the default where none of them is said.

        Raises:
            ValueError: several of them are said.
        """
        said = [word for word in self.words if word in allowed]
        if len(said) > 1:
            raise ValueError(f"{self.kind}: {' and '.join(said)} exclude each other; say one of {', '.join(allowed)}")
        return said[0] if said else default

    def option(self, name: str, default: str, allowed: Sequence[str] | None = None) -> str:
        """A value as text.

        Raises:
            ValueError: it is not among those allowed.
        """
        value = self.options.get(name, default)
        if allowed is not None and value not in allowed:
            raise ValueError(f"{self.kind}: {name} must be one of {', '.join(allowed)}, got {value!r}")
        return value

    def integer(self, name: str, default: int) -> int:
        """A positive integer.

        Raises:
            ValueError: something else, or several of them.
        """
        values = self.integers(name, (default,))
        if len(values) != 1:
            raise ValueError(f"{self.kind}: {name} must be one positive integer, got {self.options[name]!r}")
        return values[0]

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Positive integers, separated by commas.

        Raises:
            ValueError: something else.
        """
        text = self.options.get(name)
        if text is None:
            return list(default)
        parts = text.split(",")
        if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
            raise ValueError(f"{self.kind}: {name} must be positive integers separated by commas, got {text!r}")
        return [int(part) for part in parts]


def parse_data_name(text: str, words: Mapping[str, Sequence[str]], options: Mapping[str, Sequence[str]]) -> DataName:
    """A name in its parts. Words and options are taken from the end, so a folder may have colons in its name.

    Args:
        text: the name.
        words: kind -> the words that it knows.
        options: kind -> the names of its options.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown kind, no folder, or an option that is there twice.
    """
    kind, _, rest = text.partition(":")
    if kind not in words:
        raise ValueError(f"unknown kind of data {kind!r}; known are {', '.join(words)}")
    parts = rest.split(":")
    said: list[str] = []
    given: dict[str, str] = {}
    while len(parts) > 1:
        name, equals, value = parts[-1].partition("=")
        if equals and name in options[kind]:
            if name in given:
                raise ValueError(f"{kind}: {name} is there twice in {text!r}")
            given[name] = value
        elif parts[-1] in words[kind]:
            said.insert(0, parts[-1])
        else:
            break
        parts.pop()
    root = Path(":".join(parts)).expanduser()
    if not rest or not str(parts[0]):
        raise ValueError(f"{text!r} names no folder: expected {kind}:FOLDER")
    if not root.exists():
        known = [*words[kind], *(f"{name}=..." for name in options[kind])]
        hint = f" (after the folder, {kind} knows {', '.join(known)})" if known else ""
        raise FileNotFoundError(f"no such folder or file: {root}{hint}")
    return DataName(kind, root, tuple(said), given)
