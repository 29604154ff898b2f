"""Options of a command with some of them replaced."""

from __future__ import annotations

from collections.abc import Sequence


def overriding(words: Sequence[object], more: Sequence[object]) -> list[str]:
    """The words of a command and more of them; an option that is given again replaces its earlier values.

    Args:
        words: of the command.
        more: options with their values, or flags.
    """
    again = {str(word) for word in more if str(word).startswith("--")}
    kept: list[str] = []
    dropping = False
    for word in map(str, words):
        if word.startswith("--"):
            dropping = word in again
        if not dropping:
            kept.append(word)
    return [*kept, *map(str, more)]
