"""Command line: parse, call one function of the library, print."""

from deft_ct.cli.app import app

__all__ = ["app"]
