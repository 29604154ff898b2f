"""Command-line arguments that several experiments share, and the methods that they describe."""

from __future__ import annotations

import argparse
from typing import Any

from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks
from deft_ct.networks.precision import Precision
from deft_ct.reconstructor import PriorReconstructor, Reconstructor
from deft_ct.training import TrainingConfig


def experiment_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the text of an experiment as it is written, and the defaults."""

    class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
        pass

    return argparse.ArgumentParser(description=description, formatter_class=Formatter)


def add_data_arguments(parser: argparse.ArgumentParser, *, data: str = "val", every: int = 10) -> None:
    """``--data``, ``--every`` and ``--seed``."""
    parser.add_argument("--data", default=data, help="slice dataset: a path, or val, test_volumes, test_singles")
    parser.add_argument("--every", type=int, default=every, help="take every k-th slice")
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and sampling")


def add_network_arguments(parser: argparse.ArgumentParser, *, precision: Precision = "float32") -> None:
    """``--prior``, ``--htransform`` and ``--precision``, which :func:`networks_from` reads."""
    parser.add_argument("--prior", help="diffusion prior: folder or shipped name")
    parser.add_argument("--htransform", help="h-transform: folder or shipped name")
    parser.add_argument("--precision", default=precision, help="of the networks: float32, bfloat16 or float16")


def add_training_arguments(parser: argparse.ArgumentParser, *, steps: int, learning_rate: float = 2e-3) -> None:
    """The settings of one training, which :func:`training_config` reads."""
    parser.add_argument("--steps", type=int, default=steps, help="training steps of each network")
    parser.add_argument("--batch-size", type=int, default=8, help="slices in a training step")
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--momentum", type=float, default=0.95, help="of muon")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of the networks")
    parser.add_argument("--seed", type=int, default=0)


def training_config(arguments: argparse.Namespace, *, ema_decay: float = 0.995) -> TrainingConfig:
    """The training that :func:`add_training_arguments` describes."""
    return TrainingConfig(
        steps=arguments.steps, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate,
        optimizer=arguments.optimizer, momentum=arguments.momentum, warmup=50, ema_decay=ema_decay,
        precision=arguments.precision, seed=arguments.seed, checkpoint_minutes=1.0,
    )  # fmt: skip


def networks_from(arguments: argparse.Namespace, *, device: str = "cpu") -> Networks:
    """The networks that :func:`add_network_arguments` describes.

    Args:
        arguments: parsed ones.
        device: where to compute.

    Raises:
        ValueError: the precision is unknown.
    """
    return Networks(
        prior=arguments.prior, htransform=arguments.htransform, device=device, precision=arguments.precision
    )


def network_hashes(networks: Networks) -> dict[str, str]:
    """Content hashes of the prior and the h-transform, and the precision of their evaluations."""
    htransform = networks.load_htransform()
    assert htransform is not None  # it is required
    return {
        "prior_sha256": networks.load_prior().content_hash(), "htransform_sha256": htransform.content_hash(),
        "precision": networks.precision,
    }  # fmt: skip


def hashes_of(method: Reconstructor, networks: Networks) -> dict[str, str]:
    """:func:`network_hashes` of a method that uses the prior; nothing for any other method."""
    return network_hashes(networks) if isinstance(method, PriorReconstructor) else {}


def build_method(networks: Networks, text: str, *, preset: str | None = None, **options: Any) -> Reconstructor:
    """A method from text such as ``"tv:strength=80"``; ``options`` override those of the text.

    Args:
        networks: of the methods.
        text: see :func:`~deft_ct.methods.method_text.parse_method`.
        preset: name of the tuned options to start from.
        options: fields of the method's configuration.

    Raises:
        ValueError: the method or an option is unknown.
        FileNotFoundError: a network or the preset does not exist.
    """
    name, written = parse_method(text)
    return networks.build(name, written | options, preset=preset)
