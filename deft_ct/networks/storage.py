"""Networks on disk: a folder with the weights as safetensors, a JSON file of what they mean, and a model card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from deft_ct.networks import model_card
from deft_ct.networks.hub import hub_folder, is_hub_id
from deft_ct.runtime.atomic import atomic_folder, write_text
from deft_ct.runtime.json_object import read_json_object
from deft_ct.runtime.read_error import ReadError

Model = TypeVar("Model", bound=nn.Module)

PHOTOGRAPHS, BACKBONES = "photos", "backbones"
"""How the names of shipped models of photographs and of protein backbones begin; none of them is the default."""


@dataclass(frozen=True, kw_only=True)
class ModelFormat:
    """The files of one kind of model.

    Args:
        noun: what messages call it, for example "prior".
        assets: folder below ``deft_ct/assets`` with the models that come with the package.
        weights: name of the safetensors file.
        metadata: name of the JSON file; it holds the SHA-256 of the content under ``"sha256"``. A folder with such a
            file is one of ours.
        extras: names of further JSON files that :meth:`write` may be given.
        companions: patterns of files that users or scripts put into such a folder; they are kept when it is rewritten.
        remedy: what to do when none comes with the package.
        has_card: whether a model card is written; not for a model that lies in the folder of another.
    """

    noun: str
    assets: str
    weights: str
    metadata: str
    extras: tuple[str, ...] = ()
    companions: tuple[str, ...] = ("training_log*.csv",)
    remedy: str = "pass the folder of one"
    has_card: bool = True

    def write(
        self,
        folder: Path,
        state: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        dtype: torch.dtype = torch.float16,
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write a model as a folder; an existing one there is replaced in one step, and its companions are kept.

        Args:
            folder: target.
            state: the weights.
            metadata: JSON-ready, with the hash under ``"sha256"``.
            dtype: of the stored weights.
            more: further JSON files, by names in :attr:`extras`.

        Raises:
            FileExistsError: the folder holds files that this program did not write.
            WriteError: the disk is full or refuses.
        """
        weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in state.items()}
        with atomic_folder(folder, overwrite=True, is_own=self._is_own, keeps=self._is_companion) as part:
            # Written by Python and not by safetensors, whose errors do not say what the system said.
            (part / self.weights).write_bytes(save(weights, metadata={"format": "pt"}))
            for name, content in {**(more or {}), self.metadata: metadata}.items():
                write_text(part / name, json.dumps(content, indent=2, sort_keys=True) + "\n")
            if self.has_card:
                write_text(part / model_card.FILE, model_card.model_card(self.noun, metadata))

    def read(self, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The metadata, and the weights in float32 on the CPU.

        Raises:
            ReadError: the folder is not such a model, its files are damaged, or its weights are not finite numbers.
        """
        for name in (self.metadata, self.weights):
            if not (folder / name).is_file():
                raise ReadError(folder, f"is not {self._a_noun} of deft-ct: {name} is missing")
        meta = read_json_object(folder / self.metadata, self._a_noun)
        try:
            weights = load_file(folder / self.weights)
        except Exception as error:  # safetensors raises types of its own
            raise ReadError(
                folder / self.weights, f"cannot be read as {self._a_noun} ({error}); is the copy complete?"
            ) from error
        for name, value in weights.items():
            if not (value.is_floating_point() and bool(torch.isfinite(value.float()).all())):
                raise ReadError(
                    folder / self.weights, f"the weight {name[:80]} holds values that are not finite numbers"
                )
        return meta, {name: value.float() for name, value in weights.items()}

    @contextmanager
    def using(self, folder: Path) -> Iterator[None]:
        """Name the folder in whatever its content leads to.

        Raises:
            ReadError: the block raised: a value is missing, of another type or out of range.
        """
        try:
            yield
        except ReadError:
            raise
        except KeyError as error:
            raise ReadError(folder / self.metadata, f"is not {self._a_noun} of deft-ct: {error} is missing") from error
        except Exception as error:
            raise ReadError(folder, f"cannot be used as {self._a_noun} ({error}); is the copy complete?") from error

    def build(self, make: Callable[[], Model], weights: Mapping[str, Tensor]) -> Model:
        """The model with its weights; nothing is allocated for a model whose shapes are not those of the weights.

        Args:
            make: makes the model, with any weights.
            weights: of :meth:`read`.

        Raises:
            ValueError: they do not belong to the model.
        """
        with torch.device("meta"):
            expected = {name: tuple(value.shape) for name, value in make().state_dict().items()}
        found = {name: tuple(value.shape) for name, value in weights.items()}
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"{len(wrong)} weights do not fit its description, the first is {name[:80]}: expected "
                f"{expected.get(name, 'none')}, got {found.get(name, 'none')}"
            )
        model = make()
        model.load_state_dict(dict(weights))
        return model

    def check(self, folder: Path, found: str, expected: str) -> None:
        """Compare hashes.

        Raises:
            ReadError: they differ.
        """
        if found != expected:
            raise ReadError(folder, "the weights do not match their SHA-256: the files are damaged or were changed")

    def shipped(self) -> list[str]:
        """Names of the models that come with the package, the default first, those of other domains than CT last."""
        root = self._root()
        if not root.is_dir():
            return []
        names = sorted((path.name for path in root.iterdir() if (path / self.metadata).is_file()), reverse=True)
        return sorted(names, key=lambda name: name.startswith((PHOTOGRAPHS, BACKBONES)))

    def find(self, name_or_path: str | Path | None) -> Path:
        """The folder of a model: a path, a shipped name, a repository of the Hub, or None for the default one.

        Raises:
            FileNotFoundError: there is no such model.
            MissingExtraError: huggingface_hub is not installed.
            ValueError: the name of a repository has another form than ``hf:OWNER/NAME``.
        """
        known = self.shipped()
        if name_or_path is None:
            if not known:
                raise FileNotFoundError(f"no {self.noun} comes with this installation; {self.remedy}")
            return self._root() / known[0]
        if Path(name_or_path).is_dir():
            return Path(name_or_path)
        if str(name_or_path) in known:
            return self._root() / str(name_or_path)
        if is_hub_id(name_or_path):
            return hub_folder(str(name_or_path), (self.metadata, self.weights, *self.extras, *self.companions))
        raise FileNotFoundError(
            f"no {self.noun} {str(name_or_path)!r}: not a folder, and the shipped ones are {known}; one on the Hugging "
            "Face Hub is named hf:OWNER/NAME"
        )

    @property
    def _a_noun(self) -> str:
        return f"{'an' if self.noun[0] in 'aefhio' else 'a'} {self.noun}"

    def _is_own(self, path: Path) -> bool:
        """Whether a file was written by :meth:`write`: by its name, beside metadata of such a model."""
        if path.name == model_card.FILE:
            return model_card.is_written_card(path.read_text(encoding="utf-8", errors="replace"))
        if path.name not in (self.weights, self.metadata, *self.extras):
            return False
        try:
            found = json.loads((path.parent / self.metadata).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and "sha256" in found

    def _is_companion(self, path: Path) -> bool:
        return any(fnmatch(path.name, pattern) for pattern in self.companions)

    def _root(self) -> Path:
        return Path(str(resources.files("deft_ct"))) / "assets" / self.assets
