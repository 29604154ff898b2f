"""Command line: parse, call one function of the library, print."""

import os

# Threads that wait for each other sleep instead of spinning. On a machine with other work, spinning takes the time of
# the very thread that is waited for, and an operation takes ten times as long. Read when PyTorch is loaded, below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from deft_ct.cli.app import app

__all__ = ["app"]
