"""Text of unknown origin, made safe to print: headers and names of files may hold what a terminal acts on."""

from __future__ import annotations

MOST_CHARACTERS = 200


def printable(text: object, most: int = MOST_CHARACTERS) -> str:
    """One line without control characters, escape sequences, direction marks or lone surrogates.

    Args:
        text: what is to be shown.
        most: characters that are kept; what is cut is marked by "...".

    Returns:
        The text with white space as single blanks, and every other character that cannot be printed as an escape.
    """
    words = " ".join(str(text).split())
    if len(words) > most:
        words = words[:most] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in words)
