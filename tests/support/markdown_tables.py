"""Tables in Markdown, read."""

from __future__ import annotations

import re


def unpadded(table: str) -> str:
    """A table without the spaces and dashes that pad its columns."""
    return re.sub(r"-{3,}", "---", re.sub(r" {2,}", " ", table))
