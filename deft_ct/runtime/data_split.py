"""The parts of a data set."""

from __future__ import annotations

from typing import Literal

DataSplit = Literal["train", "val", "test"]
"""Trained on; for choosing parameters; for the final numbers only. Splits are by patient."""
