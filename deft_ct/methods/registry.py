"""Every reconstruction method by name."""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from deft_ct.diffusion import Prior, load_prior
from deft_ct.methods.deft import HTransform, SpreadNetwork, load_htransform, load_spread_network
from deft_ct.methods.presets import load_preset
from deft_ct.methods.supervised.model import TrainedModel
from deft_ct.networks.precision import Precision, check_precision
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.device import check_device
from deft_ct.runtime.fields import check_values

Registered = TypeVar("Registered", bound=Reconstructor)

_BUILT_IN = {
    "amortised": "deft_ct.methods.supervised.amortised:Amortised",
    "cgls": "deft_ct.methods.classical.cgls:CGLS",
    "conditional": "deft_ct.methods.supervised.conditional:Conditional",
    "daps": "deft_ct.methods.guided.daps:DAPS",
    "ddnm": "deft_ct.methods.guided.ddnm:DDNM",
    "ddrm": "deft_ct.methods.guided.ddrm:DDRM",
    "dds": "deft_ct.methods.guided.dds:DDS",
    "deft": "deft_ct.methods.deft.reconstructor:DEFT",
    "deft_online": "deft_ct.methods.deft.online:DEFTOnline",
    "diffpir": "deft_ct.methods.guided.diffpir:DiffPIR",
    "dps": "deft_ct.methods.guided.dps:DPS",
    "fbp": "deft_ct.methods.classical.ct_fbp:FBP",
    "fbp_unet": "deft_ct.methods.supervised.fbp_unet:FBPUNet",
    "i2sb": "deft_ct.methods.supervised.i2sb:I2SB",
    "learned_primal_dual": "deft_ct.methods.supervised.learned_primal_dual:LearnedPrimalDual",
    "mcg": "deft_ct.methods.guided.mcg:MCG",
    "pigdm": "deft_ct.methods.guided.pigdm:PiGDM",
    "reconstruction_guidance": "deft_ct.methods.guided.reconstruction_guidance:ReconstructionGuidance",
    "reddiff": "deft_ct.methods.guided.reddiff:REDDiff",
    "replacement": "deft_ct.methods.guided.replacement:Replacement",
    "sirt": "deft_ct.methods.classical.sirt:SIRT",
    "tikhonov": "deft_ct.methods.classical.cgls:Tikhonov",
    "tv": "deft_ct.methods.classical.tv:TV",
    "unconditional": "deft_ct.methods.guided.unconditional:Unconditional",
}

ENTRY_POINTS = "deft_ct.methods"
"""Group of entry points in which an installed package announces its methods, ``name = "module:Class"``."""

_REGISTERED: dict[str, type[Reconstructor]] = {}


def register(cls: type[Registered]) -> type[Registered]:
    """Add a method, so that it is in every list from then on; also as a decorator.

    Args:
        cls: a reconstructor with a ``name`` and a frozen dataclass as ``config_type``.

    Returns:
        The class itself.

    Raises:
        TypeError: it is not a reconstructor, or has no name or no configuration.
        ValueError: another method has this name.
    """
    if not (isinstance(cls, type) and issubclass(cls, Reconstructor)):
        raise TypeError(f"register expects a subclass of Reconstructor, got {cls!r}")
    name, config_type = getattr(cls, "name", None), getattr(cls, "config_type", None)
    if not isinstance(name, str) or not dataclasses.is_dataclass(config_type):
        raise TypeError(f"{cls.__name__} needs a name and a dataclass as config_type to be registered")
    if name in methods() and _REGISTERED.get(name) is not cls:
        raise ValueError(f"there is a method called {name!r} already: choose another name for {cls.__name__}")
    _REGISTERED[name] = cls
    return cls


@lru_cache(maxsize=1)
def _announced(search_path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The methods that installed packages announce; ``search_path`` is the key of the cache."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in _BUILT_IN or (point.name in found and found[point.name].value != point.value):
            warnings.warn(
                f"the method {point.name!r} of {point.value} is not used: there is a method of that name already",
                UserWarning,
                stacklevel=3,
            )
        else:
            found[point.name] = point
    return found


def methods() -> list[str]:
    """Names of all reconstruction methods, sorted: built-in, registered, and announced by installed packages."""
    return sorted({*_BUILT_IN, *_REGISTERED, *_announced(tuple(sys.path))})


def method_class(name: str) -> type[Reconstructor]:
    """The class behind a name.

    Raises:
        ValueError: the name is unknown; the message lists the known ones. Or a package announces under it something
            that is not a method of this name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    found: Any
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    elif name in (announced := _announced(tuple(sys.path))):
        found = announced[name].load()
        if not (isinstance(found, type) and issubclass(found, Reconstructor) and found.name == name):
            raise ValueError(f"{announced[name].value} is announced as the method {name!r} and is not one")
    else:
        raise ValueError(f"unknown method {name!r}; known methods: {', '.join(methods())}")
    cls: type[Reconstructor] = found
    return cls


def method_title(name: str) -> str:
    """How a method is written in figures and tables, see ``Reconstructor.title``; others in capitals."""
    return method_class(name).title if name in methods() else name.upper()


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Where the networks of methods come from; loads each of them once, when it is first needed.

    Attributes:
        prior: a prior, the path or name of one, or None for the shipped one.
        htransform: an h-transform, the path or name of one, or None for the shipped one.
        models: method -> trained model, or the path or name of one; the shipped one for other methods.
        device: where the networks go.
        precision: of the network evaluations, see :func:`load_reconstructor`.
    """

    prior: Prior | str | Path | None = None
    htransform: HTransform | str | Path | None = None
    models: Mapping[str, TrainedModel | str | Path] = field(default_factory=dict)
    device: str = "cpu"
    precision: Precision = "float32"
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check_device(self.device)

    def load_prior(self) -> Prior:
        """The prior."""
        prior = self.prior
        found: Prior = self._once("prior", lambda: copy.copy(prior) if isinstance(prior, Prior) else load_prior(prior))
        return found

    def load_htransform(self, *, required: bool = True) -> HTransform | None:
        """The h-transform; if it is not required and none was named, None."""
        named = self.htransform
        if named is None and not required:
            return None
        found: HTransform = self._once(
            "htransform", lambda: copy.copy(named) if isinstance(named, HTransform) else load_htransform(named)
        )
        return found

    def load_spread_network(self) -> SpreadNetwork | None:
        """The spread network in the folder of the h-transform; None if there is none, or for one in memory."""
        named, known = self.htransform, self._loaded.get("spread network")
        found = None if known or isinstance(named, HTransform) else load_spread_network(named)
        return known if found is None else self._once("spread network", lambda: found)

    def load_model(self, method: str, model_type: type[TrainedModel]) -> TrainedModel:
        """The trained model of a supervised method."""
        model = self.models.get(method)
        found: TrainedModel = self._once(
            f"model of {method}",
            lambda: copy.copy(model) if isinstance(model, TrainedModel) else model_type.load(model),
        )
        return found

    def load_named(self) -> None:
        """Load what was named and not what is shipped, so that a wrong name is found before any work.

        Raises:
            FileNotFoundError: there is no such network.
            ValueError: it is of another kind.
        """
        if self.prior is not None:
            self.load_prior()
        self.load_htransform(required=False)
        for method in self.models:
            self.build(method, {})

    def build(self, name: str, options: Mapping[str, Any], *, preset: str | Path | None = None) -> Reconstructor:
        """Build a method; see :func:`load_reconstructor` for its name, options and preset."""
        cls = method_class(name)
        chosen = dict(options)
        if preset is not None:
            chosen = load_preset(name, preset).options | chosen
        known = [item.name for item in dataclasses.fields(cls.config_type)]
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise ValueError(
                f"{name} has no option {', '.join(unknown)}; its options are: {', '.join(known) or 'none'}"
            )
        try:
            check_values(cls.config_type, chosen)
            config = cls.config_type(**chosen)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return cls.from_networks(config, self)

    def _once(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            network = load().to(self.device)
            network.precision = self.precision
            self._loaded[name] = network
        return self._loaded[name]


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """Where the networks of a job come from, by names that a record can hold; jobs add their own settings.

    Attributes:
        device: where to compute.
        precision: of the network evaluations, see :func:`load_reconstructor`.
        prior: path or name of a diffusion prior; the shipped one when None.
        htransform: path or name of an h-transform; the shipped one when None.
        models: supervised method -> path or name of its trained model; the shipped one where it is left out.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    prior: str | None = None
    htransform: str | None = None
    models: dict[str, str] = field(default_factory=dict)

    def networks(self) -> Networks:
        """The networks, each loaded when it is first needed."""
        return Networks(
            prior=self.prior, htransform=self.htransform, models=self.models, device=self.device,
            precision=self.precision,
        )  # fmt: skip


def load_reconstructor(
    name: str,
    *,
    prior: Prior | str | Path | None = None,
    htransform: HTransform | str | Path | None = None,
    model: TrainedModel | str | Path | None = None,
    preset: str | Path | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    **options: Any,
) -> Reconstructor:
    """Build a reconstruction method.

    Args:
        name: one of :func:`methods`.
        prior: for diffusion methods: a prior, the path or name of one, or None for the shipped one.
        htransform: for ``"deft"``: an h-transform, the path or name of one, or None for the shipped one. For
            ``"deft_online"``: what every measurement starts from; None starts from the initial reconstruction.
        model: for supervised methods: a trained model, the path or name of one, or None for the shipped one.
        preset: tuned options, by the name of a scan such as ``"parallel60_1e5"`` or as a file of ``deft-ct tune``;
            ``options`` go before them.
        device: where the networks go.
        precision: of the evaluations of the prior and of the h-transform, ``"float32"``, ``"bfloat16"`` or
            ``"float16"``; everything else is computed in float32.
        options: fields of the method's configuration, for example ``steps=50``.

    Returns:
        The method, ready to :meth:`~deft_ct.reconstructor.Reconstructor.reconstruct`.

    Raises:
        ValueError: the method or an option is unknown, or a value is out of range.
        FileNotFoundError: a prior, an h-transform, a model or a preset is not there.
    """
    networks = Networks(
        prior=prior, htransform=htransform, models={} if model is None else {name: model}, device=device,
        precision=precision,
    )  # fmt: skip
    return networks.build(name, options, preset=preset)
