"""Suites: benchmarks as YAML files, read into types, with one clear error that names the key."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from deft_ct.ct.scan import Scan
from deft_ct.datasets.photographs import is_photographs
from deft_ct.methods.method_text import parse_method, parse_value
from deft_ct.methods.registry import NetworkChoice, method_class
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.problems.natural_data import with_noise
from deft_ct.runtime.fields import check_fields, from_values
from deft_ct.runtime.read_error import ReadError
from deft_ct.runtime.yaml_file import read_yaml

MOST_PANELS = 8
"""Pictures of a problem; the page holds all of them."""
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, kw_only=True)
class SuiteMethod:
    """A method of a suite.

    Args:
        method: name, or ``"name:option=value,..."``.
        options: of the method; they go before those of a preset.
        label: in the tables; the text of the method when empty.

    Raises:
        ValueError: the method is unknown, or an option is there twice.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        name, options = parse_method(self.method)
        method_class(name)
        if double := sorted(set(options) & set(self.options)):
            raise ValueError(f"{', '.join(double)} is there twice for {self.method!r}: give it once")

    @property
    def name(self) -> str:
        """Of the method."""
        return parse_method(self.method)[0]

    @property
    def values(self) -> dict[str, Any]:
        """Its options; text that stands for a number, such as YAML's ``1e5``, is that number."""
        given = {key: parse_value(value) if isinstance(value, str) else value for key, value in self.options.items()}
        return parse_method(self.method)[1] | given

    @property
    def title(self) -> str:
        """Its label in the tables."""
        if self.label:
            return self.label
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.method}{',' if ':' in self.method else ':'}{options}" if options else self.method


@dataclass(frozen=True, kw_only=True)
class Suite(NetworkChoice):
    """A benchmark: data x scans x noise seeds x methods, or photographs x tasks x noise x seeds x methods.

    Args:
        data: names of data sets, see :func:`~deft_ct.problems.by_name.ct_problems`, or ``photos:...``, see
            :func:`~deft_ct.problems.natural_data.natural_problems`. ``$NAME`` stands for an environment variable, for
            data that users bring.
        scans: names of simulated scans; when None, the data's own observations, or the default scans.
        tasks: degradations of photographs, see :func:`~deft_ct.problems.natural_by_name.parse_task`.
        noise: standard deviations of the noise for all tasks; when None, that of each task.
        methods: text, or an object with ``method``, ``options`` and ``label``; when None, all that apply to the
            data and whose networks are available.
        seeds: of noise and sampling; each gives a problem of its own.
        every: keep every k-th image.
        limit: of these, keep at most so many of each data set, spread over its patients.
        samples: posterior samples of each image.
        batch_size: images at once.
        panels: keep the reconstructions of so many images of each problem, the first of each patient, for the page.
        pictures: of photographs, write every restored picture and the true one as PNG.
        presets: use the tuned parameters for the scan, or for a similar one; for the task, where it is photographs.
        preset_folder: presets that override the shipped ones.
        name: of the suite.
        description: for people.

    Raises:
        ValueError: a value is of another type or out of range; the message names it.
    """

    data: tuple[str, ...]
    scans: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    noise: tuple[float, ...] | None = None
    methods: tuple[str | dict[str, Any], ...] | None = None
    seeds: tuple[int, ...] = (0,)
    every: int = 1
    limit: int | None = None
    samples: int = 1
    batch_size: int = 8
    panels: int = 1
    pictures: bool = False
    presets: bool = True
    preset_folder: str | None = None
    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("data", "scans", "tasks", "noise", "methods", "seeds"):
            value = getattr(self, name)
            if value is not None and not value:
                raise ValueError(f"{name} is empty: name at least one, or leave the key out")
        for name in ("every", "limit", "samples", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.panels <= MOST_PANELS:
            raise ValueError(f"panels must lie between 0 and {MOST_PANELS}, got {self.panels}")
        for name in ("data", "scans", "tasks", "noise", "seeds"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has an entry twice: {', '.join(map(str, values))}")
        titles = [method.title for method in self.chosen or ()]
        if len(set(titles)) < len(titles):
            raise ValueError(f"methods has a label twice: {', '.join(titles)}")
        _ = self.scan_list
        self._check_photographs()

    def _check_photographs(self) -> None:
        kinds = {is_photographs(name) for name in self.data}
        if len(kinds) > 1:
            raise ValueError("data has photographs and others: make a suite of each")
        if self.photographs and self.tasks is None:
            raise ValueError("photographs need tasks, for example [sr4, inpaint_box]")
        for name in ("scans",) if self.photographs else ("tasks", "noise"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is not for {'photographs' if self.photographs else 'CT'}: leave it out")
        if self.pictures and not self.photographs:
            raise ValueError("pictures (--pictures) are of photographs: `deft-ct reconstruct` writes images of CT")
        _ = self.task_list

    @property
    def photographs(self) -> bool:
        """Whether the data are photographs."""
        return is_photographs(self.data[0])

    @property
    def task_list(self) -> list[str]:
        """The tasks with their noise; none for CT."""
        found = with_noise(self.tasks or (), self.noise)
        for text in found:
            parse_task(text)
        return found

    @property
    def chosen(self) -> list[SuiteMethod] | None:
        """The methods; None for all."""
        if self.methods is None:
            return None
        found = []
        for number, item in enumerate(self.methods):
            try:
                found.append(
                    SuiteMethod(method=item) if isinstance(item, str) else from_values(SuiteMethod, item)
                )  # fmt: skip
            except ValueError as error:
                raise ValueError(f"methods, entry {number + 1}: {error}") from error
        return found

    @property
    def scan_list(self) -> list[Scan] | None:
        """The scans; None for the data's own observations."""
        return None if self.scans is None else [Scan.from_name(name) for name in self.scans]

    @property
    def data_names(self) -> list[str]:
        """The data with the environment variables in them replaced.

        Raises:
            ValueError: a variable is not set.
        """
        return [_VARIABLE.sub(_of_environment, name) for name in self.data]


def read_suite(text: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Suite:
    """The suite of a YAML file.

    Args:
        text: a file, or the name of a shipped suite, for example ``"ct256"`` or ``"suites/ct256.yaml"``.
        overrides: values that go before those of the file.

    Raises:
        FileNotFoundError: there is neither a file nor a shipped suite of that name.
        ReadError: the file is not YAML, or a value does not fit; the message names the key.
    """
    path = suite_path(text)
    content = read_yaml(path, "a suite")
    if not isinstance(content, Mapping):
        raise ReadError(path, f"is not a suite: expected keys such as data and methods, got {type(content).__name__}")
    values = {"name": path.stem, **content, **(overrides or {})}
    if isinstance(values.get("data"), str):
        values["data"] = [values["data"]]
    try:
        return from_values(Suite, values)
    except ValueError as error:
        raise ReadError(path, f"is not a valid suite: {error}") from error


def suite_path(text: str | Path) -> Path:
    """The file of a suite: a file, or a shipped one by its name.

    Raises:
        FileNotFoundError: there is none; the message lists the shipped ones.
    """
    path = Path(text)
    if path.is_file():
        return path
    known = shipped_suites()
    if path.parent in (Path(), Path("suites")) and path.stem in known and path.suffix in ("", ".yaml", ".yml"):
        return _root() / f"{path.stem}.yaml"
    raise FileNotFoundError(f"no suite {str(text)!r}: not a file, and the shipped ones are {', '.join(known)}")


def shipped_suites() -> list[str]:
    """Names of the suites that come with the package, sorted."""
    return sorted(path.stem for path in _root().glob("*.yaml"))


def _root() -> Path:
    return Path(str(resources.files("deft_ct"))) / "assets" / "suites"


def _of_environment(found: re.Match[str]) -> str:
    name = found[1]
    if name not in os.environ:
        raise ValueError(f"data needs the environment variable {name}: set it to the folder, or pass --data")
    return os.environ[name]
