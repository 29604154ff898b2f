"""The log of a training: ``log.csv``, and TensorBoard events where they are asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from deft_ct.runtime.atomic import atomic_file

EVENTS = "tensorboard"


class TrainingLog:
    """A line for every ``log_every`` steps; a resumed run drops the lines after its checkpoint.

    Args:
        folder: ``log.csv`` and the folder ``tensorboard`` go there.
        start: steps done before.
        tensorboard: write events as well.
    """

    def __init__(self, folder: Path, start: int, *, tensorboard: bool = False) -> None:
        self.path = folder / "log.csv"
        rows: list[dict[str, str]] = []
        if start and self.path.is_file():
            with self.path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start]
        self.seconds = float(rows[-1]["seconds"]) if rows else 0.0
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # purge_step: viewers drop what a killed run had written after its last checkpoint
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=start + 1)

    def write(self, step: int, loss: float, rate: float, seconds: float) -> None:
        """Add a line.

        Args:
            step: optimiser steps done.
            loss: mean over the steps since the last line.
            rate: learning rate.
            seconds: since this run began.
        """
        self.rows.append(
            {"step": step, "loss": f"{loss:.6f}", "rate": f"{rate:.3e}", "seconds": f"{self.seconds + seconds:.1f}"}
        )
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_file(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        if self._events is not None:
            values = {"training/loss": loss, "training/rate": rate}
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            self._events.flush()

    def close(self) -> None:
        """Finish the file of events."""
        if self._events is not None:
            self._events.close()
