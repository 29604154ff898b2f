"""The networks of jobs on photographs: which ones where none is named, and in tiles where a picture is large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_ct.diffusion.prior_folder import shipped_priors
from deft_ct.methods.deft import shipped_htransforms
from deft_ct.methods.registry import NetworkChoice, Networks, method_class
from deft_ct.networks.tiles import TiledNetwork
from deft_ct.reconstructor import PriorReconstructor, Reconstructor

NATURAL_NETWORK = "photos64"
"""Name of the shipped prior of photographs, and of its h-transform for many tasks; that of one task is NAME-TASK."""
_OVERLAP = 4
"""Tiles share a quarter of their side."""


@dataclass(frozen=True, kw_only=True)
class PhotographNetworks(Networks):
    """Networks whose methods see a picture larger than those of the prior's training in overlapping tiles of that size.

    See :class:`~deft_ct.networks.tiles.TiledNetwork`.
    """

    def build(self, name: str, options: Mapping[str, Any], *, preset: str | Path | None = None) -> Reconstructor:
        """Build a method, see :meth:`~deft_ct.methods.registry.Networks.build`.

        Raises:
            ValueError: a name or an option is unknown, or the prior is not one of photographs.
        """
        method = super().build(name, options, preset=preset)
        if not isinstance(method, PriorReconstructor):
            return method
        if not method.prior.is_image:
            raise ValueError(f"the prior is for values of shape {method.prior.image_shape}, not for photographs")
        if method.prior.value_range is not None:
            raise ValueError(
                "the prior is for CT numbers, not for photographs: name one that was trained on photos:FOLDER"
            )
        side = min(method.prior.image_shape[1:])
        htransform = getattr(method, "htransform", None)
        for owner in (method.prior, htransform, getattr(htransform, "refinement", None)):
            if owner is not None and not isinstance(owner.network, TiledNetwork):  # a prior serves several tasks
                owner.network = TiledNetwork(owner.network, side=side, overlap=side // _OVERLAP)
        return method


class NaturalNetworks:
    """Networks of jobs on photographs; a prior is loaded once for all tasks.

    Where the h-transform is named by a folder that holds a folder for each task, by its label, each task has its own.

    Args:
        choice: what was named.
    """

    def __init__(self, choice: NetworkChoice) -> None:
        self._choice = choice
        named = choice.prior or (NATURAL_NETWORK if NATURAL_NETWORK in shipped_priors() else None)
        self._base = Networks(prior=named, device=choice.device, precision=choice.precision)

    def check(self, method: str) -> None:
        """Refuse a method whose networks are not there, before any work.

        Raises:
            FileNotFoundError: neither is a prior of photographs named nor shipped, or an h-transform of DEFT.
            ValueError: the method is unknown.
        """
        if not issubclass(method_class(method), PriorReconstructor):
            return
        if self._choice.prior is None and NATURAL_NETWORK not in shipped_priors():
            raise FileNotFoundError(
                f"{method} needs a prior of photographs, and none comes with this installation: name one with --prior. "
                "Train it with `deft-ct train prior --data photos:FOLDER`, or import one with `deft-ct prior import`"
            )
        if method == "deft" and self._choice.htransform is None and NATURAL_NETWORK not in shipped_htransforms():
            raise FileNotFoundError(
                "deft needs an h-transform of photographs, and none comes with this installation: name one with "
                "--htransform. Train it with `deft-ct train htransform --data photos:FOLDER --operator NAME`"
            )

    def for_task(self, label: str) -> PhotographNetworks:
        """The networks for a task by its label, see ``NaturalTask.label``."""
        choice = self._choice
        htransform = choice.htransform
        if htransform is None:  # that of the task, or else that of many
            known = [f"{NATURAL_NETWORK}-{label}", NATURAL_NETWORK]
            htransform = next((name for name in known if name in shipped_htransforms()), None)
        elif (Path(htransform) / label).is_dir():
            htransform = str(Path(htransform) / label)
        return PhotographNetworks(
            prior=None if self._base.prior is None else self._base.load_prior(), htransform=htransform,
            models=choice.models, device=choice.device, precision=choice.precision,
        )  # fmt: skip
