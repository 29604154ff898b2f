"""Training of the h-transform by stochastic control: from measurements, or for one measurement alone."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.scales import PerImageMap
from deft_ct.methods.deft.conditioning import condition_for
from deft_ct.methods.deft.config import HTransformConfig
from deft_ct.methods.deft.control import (
    ControlConfig,
    control_times,
    draw_paths,
    log_variance,
    path_costs,
    trajectory_balance,
)
from deft_ct.methods.deft.htransform import HTransform
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.seeds import derive_seed
from deft_ct.training import TrainingConfig, fit
from deft_ct.training.pairs import PairSource


class MeasurementSource(Protocol):
    """Measurements without their images."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def likelihood(self, indices: Tensor) -> Likelihood:
        """The measurements ``indices`` (int64 ``(B,)``, on the CPU); the same data at every call."""
        ...

    def description(self) -> dict[str, Any]:
        """All that they depend on, JSON-ready."""
        ...


class StoredMeasurements:
    """The rows of a likelihood.

    Args:
        likelihood: ``(N, C, *)`` data.
    """

    def __init__(self, likelihood: Likelihood) -> None:
        self._all = likelihood

    def __len__(self) -> int:
        return len(self._all.y)

    def likelihood(self, indices: Tensor) -> Likelihood:
        """See :class:`MeasurementSource`."""
        rows = indices.to(self._all.y.device)
        return self._all.select_images(lambda values: values[rows])

    def description(self) -> dict[str, Any]:
        """See :class:`MeasurementSource`."""
        to_physical = self._all.to_physical
        tensors = [to_physical.scale, to_physical.offset]
        return {
            "data": content_digest([self._all.y, *tensors]), "scans": measurement_content(self._all.measurement)
        }  # fmt: skip


class SimulatedMeasurements:
    """One simulated measurement of each image of a data set; the images are used for nothing else.

    Args:
        pairs: simulates the data, of its only measurement; images are not augmented.
        seed: of the noise.

    Raises:
        ValueError: there are several measurements.
    """

    def __init__(self, pairs: PairSource, *, seed: int = 0) -> None:
        if len(pairs.measurements) != 1:
            raise ValueError(f"stochastic control trains for one measurement, got {len(pairs.measurements)}")
        self._pairs, self._seed = pairs, seed

    def __len__(self) -> int:
        return len(self._pairs)

    def likelihood(self, indices: Tensor) -> Likelihood:
        """See :class:`MeasurementSource`."""
        measurement, images = self._pairs.measurements[0], self._pairs.source.batch(indices)
        rows = [
            self._pairs.simulate(
                images[k : k + 1], indices[k : k + 1], measurement, derive_seed(self._seed, "measurement", int(index))
            ).likelihood
            for k, index in enumerate(indices)
        ]
        to_physical = rows[0].to_physical
        maps = [row.to_physical for row in rows if isinstance(row.to_physical, PerImageMap)]
        if maps:
            to_physical = PerImageMap(torch.cat([m.scale for m in maps]), torch.cat([m.offset for m in maps]))
        return Likelihood(measurement, torch.cat([row.y for row in rows]), to_physical)

    def description(self) -> dict[str, Any]:
        """See :class:`MeasurementSource`."""
        return self._pairs.description() | {"noise_seed": self._seed}


class _Evidence(nn.Module):
    """An h-transform with ``ln Z`` of each measurement, in units of the standard deviation of the first costs."""

    offset: Tensor
    unit: Tensor

    def __init__(self, head: HTransform, count: int) -> None:
        super().__init__()
        self.head = head
        self.level = nn.Parameter(torch.zeros(count))
        self.register_buffer("offset", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("unit", torch.zeros(count, dtype=torch.float64))  # 0: not seen yet

    def forward(self, *inputs: Any) -> Any:
        """Evaluate the h-transform."""
        return self.head(*inputs)

    def log_evidence(self, indices: Tensor, costs: Tensor) -> Tensor:
        """``ln Z`` of measurements ``(B,)``; one that is new starts at what its costs ``(B, paths)`` suggest."""
        index = indices.to(self.level.device)
        new = index[self.unit[index] == 0]
        if len(new):
            rows = costs.detach()[self.unit[index] == 0]
            self.offset[new] = -rows.mean(1)
            self.unit[new] = rows.std(1).clamp_min(1.0)
        return self.offset[index] + self.unit[index] * self.level[index]


@dataclass(frozen=True, kw_only=True)
class ControlTraining:
    """What is trained by stochastic control, and how.

    Args:
        config: what the network sees.
        control: the objective.
        training: optimiser settings.
        initial: start from the weights of this h-transform, of the same configuration and prior, instead of from zero.
    """

    config: HTransformConfig
    control: ControlConfig
    training: TrainingConfig
    initial: HTransform | None = None


def train_control(
    measured: MeasurementSource,
    prior: Prior,
    folder: Path,
    settings: ControlTraining,
    *,
    progress: bool = True,
) -> HTransform:
    """Train an h-transform from measurements alone; resumes from ``folder``.

    A step takes ``settings.training.batch_size`` measurements and ``settings.control.paths`` paths of each.

    Args:
        measured: the measurements.
        prior: the frozen model.
        folder: checkpoint and log; an interrupted training resumes from it.
        settings: what is trained, and how.
        progress: show a progress bar.

    Returns:
        The h-transform with the averaged weights, on the CPU.

    Raises:
        ValueError: ``settings.initial`` is of another kind, or the guidance depends on the noise level.
        OtherContentError: the folder is of another training.
        RuntimeError: started on several processes.
    """
    config, control, training, initial = settings.config, settings.control, settings.training, settings.initial
    if config.guidance_object().has_settings:
        raise ValueError(f"stochastic control takes guidance score, adjoint, fbp or data, got {config.guidance}")
    if any(image.of_estimate for image in config.operator_images):
        raise ValueError("stochastic control takes images that the operator declares of the data, not of an estimate")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        head = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    if initial is not None:
        if initial.description() != head.description():
            raise ValueError("the initial h-transform has another configuration or prior; use the same here")
        head.load_state_dict(initial.state_dict())
    head.card = {"control": asdict(control), "measurements": len(measured)}
    balance = _Evidence(head, len(measured)) if control.objective == "trajectory-balance" else None
    times = control_times(prior.schedule, control.steps)

    def loss(net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        if isinstance(net, nn.parallel.DistributedDataParallel):
            raise RuntimeError("the stochastic-control objectives train on one process: start without several")
        prior.to(generator.device)  # where the training runs; does nothing once it is there
        likelihood = _on(measured.likelihood(indices), generator.device)
        condition = condition_for(likelihood, head).repeat(control.paths)
        paths = draw_paths(
            net, prior, likelihood.repeat(control.paths), condition, times, guidance=head.guidance,
            normal=lambda x: torch.randn(x.shape, generator=generator, device=generator.device).to(x.dtype),
        )  # fmt: skip
        costs = path_costs(net, paths)
        if balance is None:
            return log_variance(costs, control.paths)
        level = balance.log_evidence(indices, costs.reshape(-1, control.paths))
        return trajectory_balance(costs, level, control.paths)

    identity = measured.description() | {
        "prior": prior.content_hash(), "h-transform": config.to_dict(), "control": asdict(control),
        "initial": initial and initial.content_hash(),
    }  # fmt: skip
    averaged = fit(balance or head, loss, len(measured), training, folder, identity=identity, progress=progress).cpu()
    return averaged.head if isinstance(averaged, _Evidence) else cast(HTransform, averaged)


def finetune_online(
    prior: Prior,
    likelihood: Likelihood,
    settings: ControlTraining,
    *,
    folder: Path | None = None,
    progress: bool = False,
) -> HTransform:
    """Learn the h-transform of a single measurement from nothing but this measurement.

    Args:
        prior: the frozen model.
        likelihood: the measurement, one row of data.
        settings: what is trained, and how; ``training.batch_size`` sets of paths are drawn in a step.
        folder: keeps checkpoint and log, so that the training can be resumed; None keeps nothing.
        progress: show a progress bar.

    Returns:
        The h-transform, on the device of the data.

    Raises:
        ValueError: there is not exactly one measurement, or ``settings.initial`` is of another kind.
    """
    if len(likelihood.y) != 1:
        raise ValueError(f"online fine-tuning is for one measurement, got {len(likelihood.y)}: call it for each")
    single = Likelihood(likelihood.measurement, likelihood.y.float(), likelihood.to_physical)
    with tempfile.TemporaryDirectory() as scratch:
        head = train_control(StoredMeasurements(single), prior, folder or Path(scratch), settings, progress=progress)
    device = likelihood.y.device
    prior.to(device)
    return head.to(device).eval().requires_grad_(False)


def _on(likelihood: Likelihood, device: torch.device) -> Likelihood:
    if likelihood.y.device == device:
        return likelihood
    to_physical = likelihood.to_physical
    if isinstance(to_physical, PerImageMap):
        to_physical = PerImageMap(to_physical.scale.to(device), to_physical.offset.to(device))
    return Likelihood(likelihood.measurement.to(device), likelihood.y.to(device), to_physical)
