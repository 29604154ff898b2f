"""The one family of errors that every reader of a file raises; defined where the models' rooms may import it, too."""

from __future__ import annotations

from deft_ct.runtime.read_error import ReadError

__all__ = ["ReadError"]
