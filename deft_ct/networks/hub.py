"""Trained networks on the Hugging Face Hub: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.printable import printable

PREFIX = "hf:"
EXTRA = "hub"
_NAME = re.compile(r"(?P<name>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,100}))?", re.ASCII)
_MOST_CHARACTERS = 200
"""Of what the Hub answers, in a message."""


def is_hub_id(name: str | Path) -> bool:
    """Whether a name means a repository of the Hub."""
    return str(name).startswith(PREFIX)


def hub_folder(name: str, patterns: Sequence[str]) -> Path:
    """The folder of a repository of the Hub in the local cache. Files that are missing there are downloaded.

    Only files of the given names are fetched. None of them is a pickle, so that nothing of a repository is executed.
    Without a network, a repository that was fetched before is found in the cache.

    Args:
        name: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME@REVISION`` with a branch, a tag or a commit.
        patterns: names of files that may be fetched, with ``*`` for anything.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        FileNotFoundError: there is no such repository or revision, access is refused, or the Hub cannot be reached.
        ValueError: the name has another form.
    """
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if found is None:
        raise ValueError(f"a repository of the Hub is named hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {name!r}")
    hub: Any = optional_library("huggingface_hub", EXTRA)
    errors: Any = optional_library("huggingface_hub.errors", EXTRA)
    try:
        folder = hub.snapshot_download(found["name"], revision=found["revision"], allow_patterns=list(patterns))
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{found['name']} has no revision {found['revision']!r} on the Hub") from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"no repository {found['name']!r} on the Hub, or no access to it: check the name; for a private one, log "
            "in with `hf auth login`"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        said = printable(str(error).partition("\n")[0], _MOST_CHARACTERS)
        raise FileNotFoundError(
            f"{found['name']} is not in the local cache, and the Hub did not give it ({said}): check the network, or "
            "download the files elsewhere and pass their folder"
        ) from error
    return Path(folder)
