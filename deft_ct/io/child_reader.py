"""The process that opens HDF5 and MATLAB files for us; :mod:`deft_ct.io.reading_process` starts it and talks to it.

A damaged file can crash these libraries or make them loop where no signal handler of Python runs, so they never open a
file in the process of the user. This file is run as a script and imports nothing of deft_ct (torch alone would take
seconds). It answers requests, one JSON object a line on stdin, by messages on stdout: one JSON object a line, followed
by as many raw bytes as its ``"bytes"`` says; the last message of an answer has ``"done"`` or ``"error"``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import h5py
import numpy as np

Message = tuple[dict[str, Any], Any]
"""A message and the bytes (anything with the buffer protocol) that follow it, or None."""

BLOCK_BYTES = 8 * 2**20
ATTRIBUTE_BYTES = 2**20
TEXT_BYTES = 2**16
MOST_LINKS = 16


class RefusedError(Exception):
    """Something that we do not read from a file that is not trusted."""


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until there are none."""
    for line in requests:
        request = json.loads(line)
        set_limits(request["seconds"], request["memory"])
        try:
            for message, content in HANDLERS[request["do"]](request):
                _send(replies, message, content)
            _send(replies, {"done": True})
        except MemoryError:
            _send(replies, {"error": "reading it takes more memory than its size allows"})
        except RefusedError as error:
            _send(replies, {"error": str(error), "refused": True})
        except Exception as error:  # noqa: BLE001 - whatever a library raises is an answer
            _send(replies, {"error": (str(error) or type(error).__name__)[:500]})
        set_limits(0, None)
        replies.flush()


def set_limits(seconds: float, memory: int | None) -> None:
    """End this process after a time even where the library loops, and cap its address space, where the system can.

    Args:
        seconds: 0 for no limit.
        memory: bytes; None for no limit.
    """
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(seconds) + 1 if seconds else 0)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = hard if memory is None else memory
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def tree(request: dict[str, Any]) -> Iterator[Message]:
    """One message for each object of an HDF5 file, with its shape, type, attributes and what keeps us from reading it.

    Args:
        request: ``path``; ``depth`` of groups to list; ``members``, the most objects.
    """
    left = int(request["members"])
    with h5py.File(request["path"], "r") as file:
        yield {"name": "", "kind": "group", "attributes": attributes(file)}, None
        waiting = [("", 1)]
        while waiting:
            parent, depth = waiting.pop()
            group = resolve(file, parent)
            for key in group:
                name = f"{parent}/{key}" if parent else key
                left -= 1
                if left < 0:
                    raise RefusedError(f"it holds more than {request['members']} objects")
                described = _described(file, name)
                yield described, None
                if described["kind"] == "group" and depth < request["depth"]:
                    waiting.append((name, depth + 1))


def _described(file: h5py.File, name: str) -> dict[str, Any]:
    try:
        node = resolve(file, name)
        if isinstance(node, h5py.Group):
            return {"name": name, "kind": "group", "attributes": attributes(node)}
        if not isinstance(node, h5py.Dataset):
            return {"name": name, "kind": "other", "problem": "it is neither a group nor a dataset"}
        problem = _refusal(node)
        stored = int(node.id.get_storage_size())
        return {
            "name": name, "kind": "dataset", "shape": list(node.shape or ()), "dtype": node.dtype.str,
            "stored": stored, "problem": problem, "text": _text_refusal(node) is None, "attributes": attributes(node),
        }  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - one damaged object does not hide the others
        return {"name": name, "kind": "damaged", "problem": (str(error) or type(error).__name__)[:500]}


def resolve(file: h5py.File, name: str) -> Any:
    """The object of a name. Links within the file are followed by hand, a link to another file is refused."""
    parts, links = [p for p in PurePosixPath(name).parts if p != "/"], 0
    node: Any = file
    done: list[str] = []
    while parts:
        key = parts.pop(0)
        if not isinstance(node, h5py.Group):
            raise KeyError(f"'{'/'.join(done)}' is not a group")
        link = node.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise RefusedError(f"'{name}' is an external link to another file ({link.filename!r}); it is not followed")
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > MOST_LINKS:
                raise RefusedError(f"'{name}' is a link that leads nowhere")
            target = PurePosixPath(link.path)
            new = [p for p in target.parts if p not in ("/", ".")]
            parts = (new if target.is_absolute() else [*done, *new]) + parts
            node, done = file, []
        else:
            node = node[key]
            done.append(key)
    return node


def _refusal(data: h5py.Dataset) -> str | None:
    """Why the values of a dataset are not read; None where they are."""
    elsewhere = _refused_place(data)
    if elsewhere:
        return elsewhere
    if data.dtype.kind not in "biuf" or data.dtype.itemsize not in (1, 2, 4, 8):
        return f"its values are of type {data.dtype}, not real numbers"
    return None


def _text_refusal(data: h5py.Dataset) -> str | None:
    """Why a dataset is not read as texts; None where it is."""
    elsewhere = _refused_place(data)
    if elsewhere:
        return elsewhere
    if h5py.check_string_dtype(data.dtype) is None or data.ndim != 1:
        return f"its values are of type {data.dtype} and shape {data.shape}, not a list of texts"
    return None


def _refused_place(data: h5py.Dataset) -> str | None:
    """Why the values of a dataset are none of this file; None where they are."""
    if data.is_virtual:
        return "it is a virtual dataset, whose values lie in other files; they are not read"
    if data.id.get_create_plist().get_external_count():
        return "it keeps its values in another file (external storage), which is not read"
    if data.shape is None:
        return "it is empty"
    return None


def attributes(node: Any) -> dict[str, list[Any]]:
    """Each attribute as ``["value", JSON]``, or ``["problem", why]`` where it cannot be read."""
    found: dict[str, list[Any]] = {}
    for key in node.attrs:
        try:
            size = node.attrs.get_id(key).get_storage_size()
            if size > ATTRIBUTE_BYTES:
                raise RefusedError(f"it takes {size} bytes")
            found[key] = ["value", attribute_value(node.attrs[key])]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            found[key] = ["problem", (str(error) or type(error).__name__)[:500]]
    return found


def attribute_value(value: Any) -> Any:
    """An attribute as JSON holds it; raises TypeError for what is neither text nor numbers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind in "biuf":
            return value.tolist()
        return attribute_value(value.tolist())
    if isinstance(value, list):
        return [attribute_value(item) for item in value]
    if isinstance(value, str):
        return value
    raise TypeError(f"it is a {type(value).__name__}, not text or numbers")


def read(request: dict[str, Any]) -> Iterator[Message]:
    """The values of one dataset in pieces along its first axis, in C order.

    Args:
        request: ``path``, ``name``, the ``shape`` and ``dtype`` that :func:`tree` told, and ``chosen``:
            [start, stop, step] for each of the first axes.
    """
    with h5py.File(request["path"], "r") as file:
        data = resolve(file, request["name"])
        problem = _refusal(data)
        if problem:
            raise RefusedError(f"'{request['name']}': {problem}")
        if list(data.shape) != request["shape"] or data.dtype.str != request["dtype"]:
            raise RefusedError(f"'{request['name']}' changed while it was read")
        dtype = data.dtype.newbyteorder("=")
        chosen = [slice(*bounds) for bounds in request["chosen"]]
        if data.ndim == 0:
            yield _block(np.asarray(data[()], dtype))
            return
        first = range(*(chosen[0] if chosen else slice(None)).indices(data.shape[0]))
        rest = tuple(chosen[1:])
        row = max(1, dtype.itemsize * math.prod(data.shape[1:]))
        deep = data.chunks[0] if data.chunks else 1
        count = max(1, BLOCK_BYTES // row // deep) * deep
        for start in range(0, len(first), count):
            part = first[start : start + count]
            rows = slice(part.start, part[-1] + 1, part.step)
            yield _block(np.asarray(data[(rows, *rest)], dtype))


def texts(request: dict[str, Any]) -> Iterator[Message]:
    """The texts of a list, in messages with ``"texts"``. Bytes that are not UTF-8 become replacement characters.

    Texts of any length lie in a heap of the file, and several may be one and the same object, so what they take in
    memory is not known before they are read. They are read one by one.

    Args:
        request: ``path``, ``name``, the ``shape`` that :func:`tree` told, and ``bytes``, the most of all texts.
    """
    left = int(request["bytes"])
    with h5py.File(request["path"], "r") as file:
        data = resolve(file, request["name"])
        problem = _text_refusal(data)
        if problem:
            raise RefusedError(f"'{request['name']}': {problem}")
        if list(data.shape) != request["shape"]:
            raise RefusedError(f"'{request['name']}' changed while it was read")
        block: list[str] = []
        waiting = 0
        for n in range(data.shape[0]):
            value = data[n]
            value = value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
            if len(value) > TEXT_BYTES:
                raise RefusedError(f"'{request['name']}': text {n} has {len(value)} bytes; at most {TEXT_BYTES}")
            left -= len(value)
            if left < 0:
                raise RefusedError(f"'{request['name']}': its texts have more than {request['bytes']} bytes")
            block.append(value.decode("utf-8", "replace"))
            waiting += len(value) + 1
            if waiting > TEXT_BYTES:
                yield {"texts": block}, None
                block, waiting = [], 0
        yield {"texts": block}, None


def places(request: dict[str, Any]) -> Iterator[Message]:
    """Where the chunks of a dataset lie in its file, if they are stored as they are, or by gzip (with shuffle or not).

    The first message has ``"chunks"``, the shape of a chunk, or None where the values cannot be taken from the file
    directly; the ``"fill"`` value of chunks that were never written; and whether they are ``"deflated"`` and
    ``"shuffled"``. Then int64 byte offsets follow, one for each chunk in C order of the grid of chunks, -1 for a chunk
    that was never written; and, if they are deflated, as many stored sizes. A contiguous dataset has chunks of one row.

    Args:
        request: ``path``, ``name``, and the ``shape`` and ``dtype`` that :func:`tree` told.
    """
    with h5py.File(request["path"], "r") as file:
        data = resolve(file, request["name"])
        problem = _refusal(data)
        if problem:
            raise RefusedError(f"'{request['name']}': {problem}")
        if list(data.shape) != request["shape"] or data.dtype.str != request["dtype"]:
            raise RefusedError(f"'{request['name']}' changed while it was read")
        plan = data.id.get_create_plist()
        layout = plan.get_layout()
        filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
        known = filters in ([], [h5py.h5z.FILTER_DEFLATE], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE])
        plain = known and not file.userblock_size and data.ndim and data.size
        if not plain or layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
            yield {"chunks": None}, None
            return
        chunks = data.chunks or (1, *data.shape[1:])
        grid = tuple(-(-n // c) for n, c in zip(data.shape, chunks, strict=True))
        offsets, sizes = np.full(grid, -1, np.int64), np.zeros(grid, np.int64)
        left_out: list[int] = []  # filters of single chunks
        if layout == h5py.h5d.CHUNKED:

            def note(chunk: Any) -> None:
                place = tuple(n // c for n, c in zip(chunk.chunk_offset, chunks, strict=True))
                offsets[place], sizes[place] = chunk.byte_offset, chunk.size
                left_out.append(chunk.filter_mask)

            if data.id.get_num_chunks():
                data.id.chunk_iter(note)
        elif data.id.get_offset() is not None:
            row = data.dtype.itemsize * math.prod(data.shape[1:])
            offsets.reshape(-1)[:] = data.id.get_offset() + row * np.arange(data.shape[0])
        if any(left_out):
            yield {"chunks": None}, None
            return
        shuffled = h5py.h5z.FILTER_SHUFFLE in filters
        yield {
            "chunks": list(chunks), "fill": float(data.fillvalue), "deflated": bool(filters), "shuffled": shuffled
        }, None  # fmt: skip
        yield _block(offsets)
        if filters:
            yield _block(sizes)


def _block(array: np.ndarray[Any, Any]) -> Message:
    content = np.ascontiguousarray(array)
    return {"bytes": content.nbytes}, content


def matlab(request: dict[str, Any]) -> Iterator[Message]:
    """Variables of a MATLAB 5 file; arrays follow as messages of their own, in the order of their numbers.

    Args:
        request: ``path``; ``names`` of the variables.
    """
    import scipy.io

    content = scipy.io.loadmat(
        request["path"], appendmat=False, squeeze_me=True, struct_as_record=False, variable_names=request["names"]
    )
    arrays: list[np.ndarray[Any, Any]] = []
    values = {key: _value(content[key], arrays, 0) for key in request["names"] if key in content}
    if not values:
        held = [name for name, _, _ in scipy.io.whosmat(request["path"], appendmat=False)]
        raise RefusedError(f"holds {sorted(held)[:20]}, expected one of {request['names']}")
    shapes = [[list(a.shape), a.dtype.str] for a in arrays]
    yield {"values": values, "arrays": shapes}, None
    for array in arrays:
        yield _block(array)


def _value(value: Any, arrays: list[np.ndarray[Any, Any]], depth: int) -> Any:
    """``{"struct": {...}}``, ``{"array": number}`` or ``{"value": JSON}``; None for what is none of these."""
    if depth > MOST_LINKS:
        raise RefusedError("its structures are nested too deeply")
    if hasattr(value, "_fieldnames"):
        return {"struct": {str(n): _value(getattr(value, n), arrays, depth + 1) for n in value._fieldnames}}
    if isinstance(value, str):
        return {"value": value[:TEXT_BYTES]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        arrays.append(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
        return {"array": len(arrays) - 1}
    if isinstance(value, bool | int | float):
        return {"value": value}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"value": value.item()}
    return None


def _send(replies: BinaryIO, message: dict[str, Any], content: Any = None) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    if content is not None:
        replies.write(memoryview(content.reshape(-1).view(np.uint8)))


HANDLERS: dict[str, Callable[[dict[str, Any]], Iterator[Message]]] = {
    "tree": tree, "read": read, "texts": texts, "places": places, "matlab": matlab,
}  # fmt: skip


def main() -> None:
    """Serve stdin and stdout, and end with the parent."""
    with os.fdopen(os.dup(1), "wb") as replies:  # nothing that a library prints gets between the messages
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this process
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
