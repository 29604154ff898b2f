"""YAML files that are not trusted."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from deft_ct.runtime.extras import optional_library
from deft_ct.runtime.read_error import ReadError

MOST_BYTES = 2**20


def read_yaml(path: Path, noun: str) -> Any:
    """The content of a YAML file: plain values, lists and mappings.

    Args:
        path: the file.
        noun: what it should be, for messages: "a suite".

    Raises:
        FileNotFoundError: no such file.
        ReadError: it is larger than 1 MiB, not YAML, or a key is there twice.
        MissingExtraError: PyYAML is not installed.
    """
    optional_library("yaml", "benchmark")
    import yaml

    class Strict(yaml.SafeLoader):
        """A key that is there twice is an error; PyYAML would take the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys: Sequence[Any] = [self.construct_object(key, deep=True) for key, _ in node.value]
            for n, key in enumerate(keys):
                if key in keys[:n]:
                    where = node.start_mark
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key} is there twice", where)
            return super().construct_mapping(node, deep)

    if path.stat().st_size > MOST_BYTES:
        raise ReadError(path, f"is not {noun}: it is larger than {MOST_BYTES // 2**20} MiB")
    try:
        loader = Strict(path.read_text(encoding="utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ReadError(path, f"is not YAML: {' '.join(str(error).split())[:300]}") from error
