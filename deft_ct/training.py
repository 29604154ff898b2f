"""One training loop for every network of the package.

Randomness is a function of (seed, step, process), never of what ran before, so a run that was stopped and resumed
gives the weights of an unbroken one. Checkpoints are written to a temporary file and renamed into place.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from deft_ct.networks.precision import Precision

Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]
"""``loss(network, indices, generator)``: scalar loss of the training items ``indices`` (int64, ``(B,)``, on CPU)."""
Validation = Callable[[nn.Module], Mapping[str, float]]
"""Scores the averaged network; the values go into the log."""

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Args:
        steps: optimiser steps of the whole training.
        batch_size: items of one optimiser step, over all processes and accumulated parts.
        learning_rate: peak rate of AdamW.
        warmup: steps of linear warm-up; cosine decay to ``final_rate * learning_rate`` follows.
        final_rate: fraction of the peak rate at the end.
        weight_decay: of AdamW.
        ema_decay: decay of the averaged weights; ramps up as ``(1 + n) / (10 + n)`` from the start.
        grad_clip: largest gradient norm.
        accumulate: parts that a batch is split into, one after the other, to save memory.
        precision: "no" for float32, "bf16" or "fp16" for mixed precision.
        compile: compile the network with torch.compile.
        channels_last: keep convolution weights channels-last, faster on GPUs with tensor cores.
        seed: of the order of the data and of all noise.
        checkpoint_minutes: time between two checkpoints.
        max_minutes: stop (with a checkpoint) after this time; None for no limit.
        log_every: steps between two lines of the log.
        validate_every: steps between two validations; 0 for none but the last.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int
    batch_size: int = 8
    learning_rate: float = 3e-4
    warmup: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.0
    ema_decay: float = 0.999
    grad_clip: float = 1.0
    accumulate: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    checkpoint_minutes: float = 5.0
    max_minutes: float | None = None
    log_every: int = 20
    validate_every: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.accumulate, self.log_every) < 1:
            raise ValueError("steps, batch_size, accumulate and log_every must be at least 1")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate must lie in (0, 1), got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")

    @property
    def network_precision(self) -> Precision:
        """:attr:`precision` in the words of frozen networks, which a training evaluates likewise."""
        names: dict[str, Precision] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
        return names[self.precision]

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        low = self.final_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def item_order(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """The items of one step: passes over a permutation that depends on (seed, pass) alone.

    Args:
        count: number of items.
        batch_size: items of a step.
        step: counted from 0.
        seed: of the order.

    Returns:
        int64 ``(batch_size,)``.
    """
    out: list[Tensor] = []
    position, needed = step * batch_size, batch_size
    while needed:
        epoch, offset = divmod(position, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(mixed_seed(seed, epoch, 1)))
        part = order[offset : offset + needed]
        out.append(part)
        position, needed = position + len(part), needed - len(part)
    return torch.cat(out)


def fit(
    network: nn.Module,
    loss: Loss,
    count: int,
    config: TrainingConfig,
    folder: Path,
    *,
    validation: Validation | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> nn.Module:
    """Train ``network`` and return its exponential moving average; resumes from ``folder`` when it can.

    Args:
        network: the module to train; trained in place.
        loss: loss of a set of items, with all randomness drawn from the generator that it is given.
        count: number of training items.
        config: see :class:`TrainingConfig`.
        folder: where ``checkpoint.pt`` and ``log.csv`` go.
        validation: scores the averaged network.
        identity: what else makes this training what it is (prior, scans, shape), JSON-ready; a checkpoint of another
            is refused.
        progress: show a progress bar.

    Returns:
        The averaged network, on the device of the training, in evaluation mode.

    Raises:
        ValueError: the folder holds a checkpoint of another configuration.
        FloatingPointError: the loss is not finite.
        RuntimeError: out of memory; the message says what to change.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    folder.mkdir(parents=True, exist_ok=True)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    averaged = {name: value.detach().clone() for name, value in network.state_dict().items()}
    start = _resume(folder / CHECKPOINT, network, optimizer, averaged, config, _digests(identity))
    if start:  # the order of AdamW's state and the averages follow the network to its device
        accelerator.print(f"resuming at step {start} of {config.steps}")
    model, optimizer = accelerator.prepare(network, optimizer)
    averaged = {name: value.to(accelerator.device) for name, value in averaged.items()}
    run: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    share = config.batch_size // accelerator.num_processes
    began = saved = time.monotonic()
    losses: list[float] = []
    log = _Log(folder / "log.csv", start) if accelerator.is_main_process else None

    def save(step: int) -> None:
        if accelerator.is_main_process:
            trained = accelerator.unwrap_model(model)
            _save(folder / CHECKPOINT, trained, optimizer, averaged, step, config, _digests(identity))

    bar = Progress(
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"), disable=not (progress and accelerator.is_main_process),
    )  # fmt: skip
    step = start
    with bar:
        task = bar.add_task("training", total=config.steps, completed=start, loss=float("nan"))
        model.train()
        for step in range(start, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            items = item_order(count, config.batch_size, step, config.seed)
            mine = items[accelerator.process_index * share : (accelerator.process_index + 1) * share]
            total = 0.0
            for part, indices in enumerate(mine.chunk(config.accumulate)):
                generator = torch.Generator(accelerator.device)
                generator.manual_seed(
                    mixed_seed(config.seed, step, accelerator.process_index * config.accumulate + part + 2)
                )
                # The prepared network runs in mixed precision by itself; operators and losses stay in float32.
                value = _with_memory_advice(loss, run, indices, generator) * len(indices) / len(mine)
                accelerator.backward(value)
                total += float(value.detach())
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"the loss is {total} at step {step}: lower the learning rate, or resume from "
                    f"{folder / CHECKPOINT} with another seed"
                )
            accelerator.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _average(averaged, accelerator.unwrap_model(model), min(config.ema_decay, (1 + step) / (10 + step)))
            losses.append(total)
            bar.update(task, completed=step + 1, loss=sum(losses[-50:]) / len(losses[-50:]))
            now = time.monotonic()
            due = config.validate_every and (step + 1) % config.validate_every == 0
            if log is not None and ((step + 1) % config.log_every == 0 or due):
                scores = dict(validation(_ema_network(network, averaged))) if due and validation else {}
                log.write(step + 1, sum(losses) / len(losses), config.rate(step), now - began, scores)
                losses.clear()
            out_of_time = config.max_minutes is not None and now - began > 60 * config.max_minutes
            if now - saved > 60 * config.checkpoint_minutes or out_of_time:
                save(step + 1)
                saved = now
            if out_of_time:
                accelerator.print(f"stopped by the time limit after step {step + 1}; run again to go on")
                break
        else:
            save(config.steps)
    return _ema_network(network, averaged)


def ema_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the checkpoint in ``folder``.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; train first")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["averaged"]
    return weights


class _Log:
    """``log.csv``: a line for every ``log_every`` steps; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        rows: list[dict[str, str]] = []
        if start and path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= start]
        self.seconds = float(rows[-1]["seconds"]) if rows else 0.0
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]

    def write(self, step: int, loss: float, rate: float, seconds: float, scores: Mapping[str, float]) -> None:
        self.rows.append(
            {"step": step, "loss": f"{loss:.6f}", "rate": f"{rate:.3e}", "seconds": f"{self.seconds + seconds:.1f}"}
            | {name: f"{value:.4f}" for name, value in scores.items()}
        )
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.path)


def mixed_seed(*values: int) -> int:
    """A 63-bit seed from several integers, without collisions between neighbours (splitmix64)."""
    state = 0
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def _average(averaged: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            averaged[name].lerp_(value, 1 - decay) if value.is_floating_point() else averaged[name].copy_(value)


def _ema_network(network: nn.Module, averaged: Mapping[str, Tensor]) -> nn.Module:
    clone = copy.deepcopy(network).eval()
    clone.load_state_dict(dict(averaged))
    return clone


def digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _digests(identity: Mapping[str, Any] | None) -> dict[str, str]:
    """A hash of each value: short, and alike before and after a checkpoint."""
    return {name: digest(value) for name, value in (identity or {}).items()}


def _save(
    path: Path, network: nn.Module, optimizer: Any, averaged: Mapping[str, Tensor], step: int, config: TrainingConfig,
    identity: Mapping[str, str],
) -> None:  # fmt: skip
    part = path.with_suffix(".part")
    state = {
        "network": network.state_dict(),
        "averaged": dict(averaged),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "config": asdict(config),
        "identity": dict(identity),
    }
    torch.save(state, part)
    part.replace(path)


def _resume(
    path: Path, network: nn.Module, optimizer: Any, averaged: dict[str, Tensor], config: TrainingConfig,
    identity: Mapping[str, str],
) -> int:  # fmt: skip
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    free = ("compile", "channels_last", "checkpoint_minutes", "max_minutes", "log_every", "validate_every")
    changed = [name for name, value in state["config"].items() if name not in free and value != getattr(config, name)]
    before = state.get("identity", identity)
    changed += sorted(name for name in before | identity if before.get(name) != identity.get(name))
    if changed:
        raise ValueError(
            f"{path} was written with another {', '.join(changed)}: use the same values to resume, "
            "or another folder to start anew"
        )
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    averaged.update(state["averaged"])
    return int(state["step"])


def _with_memory_advice(loss: Loss, network: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
    try:
        return loss(network, indices, generator)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"out of memory with {len(indices)} items at once: raise `accumulate`, or lower `batch_size`"
        ) from error
