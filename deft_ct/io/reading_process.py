"""The child process that opens files that are not trusted: how it is started, asked, and ended when it is late.

A request is a line of JSON. The answer is lines of JSON, some followed by the bytes of an array; see
:mod:`deft_ct.io.child_reader`. The child starts once (about 0.3 s) and then answers for every file.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deft_ct.io.errors import ReadError

CHILD = Path(__file__).with_name("child_reader.py")
LINE_BYTES = 64 * 2**20
"""Longest message of the child without its array; a longer one comes from no sound file."""


class _AnswerError(Exception):
    """The child says that it cannot answer; ``refused`` where the file asks for what we do not do."""

    def __init__(self, text: str, *, refused: bool) -> None:
        super().__init__(text)
        self.refused = refused


class ReadingChild:
    """A running child process.

    Attributes:
        process: the process.
        late: whether it was killed because it took too long.
    """

    def __init__(self) -> None:
        threads = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads},
        )
        self.late = False

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def messages(self) -> Iterator[dict[str, Any]]:
        """The messages of the answer, up to its end or to one that is followed by an array."""
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline(LINE_BYTES)
            if not line.endswith(b"\n"):
                raise EOFError
            message: dict[str, Any] = json.loads(line)
            if "error" in message:
                raise _AnswerError(message["error"], refused=message.get("refused", False))
            if "done" in message:
                return
            yield message

    def fill(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Receive arrays, each in one piece or several, to the end of the answer."""
        assert self.process.stdout is not None
        waiting = [memoryview(array.reshape(-1).view(np.uint8).data) for array in arrays if array.nbytes]
        for message in self.messages():
            size = int(message["bytes"])
            if not size:
                continue
            if not waiting or size > len(waiting[0]):
                raise EOFError
            target = waiting[0][:size]
            while len(target):
                count = self.process.stdout.readinto(target)  # type: ignore[attr-defined]
                if not count:
                    raise EOFError
                target = target[count:]
            waiting[0] = waiting[0][size:]
            if not len(waiting[0]):
                del waiting[0]
        if waiting:
            raise EOFError

    def kill(self) -> None:
        """End it and close its pipes."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        self.process.wait()

    def kill_late(self) -> None:
        """End it because it took too long."""
        self.late = True
        self.process.kill()


_lock = threading.Lock()
_children: dict[int, ReadingChild] = {}  # by process: a fork (a worker of a data loader) starts its own


@contextlib.contextmanager
def answering(path: Path, request: Mapping[str, Any], failure: str) -> Iterator[ReadingChild]:
    """Send a request and give the child that answers; whatever goes wrong names the file. One request at a time."""
    with _lock:
        child = _running()
        timer = threading.Timer(request["seconds"], child.kill_late)
        timer.daemon = True
        timer.start()
        sound = False
        try:
            child.ask(request)
            yield child
            sound = True
        except _AnswerError as error:
            sound = True
            if error.refused:
                raise ReadError(path, str(error)) from None
            raise ReadError(path, f"{failure} ({error}); is the download complete?") from None
        except (EOFError, BrokenPipeError, json.JSONDecodeError, KeyError, TypeError) as error:
            if child.late:
                why = f"reading takes more than {request['seconds']:.0f} s and was ended"
            else:
                why = f"reading crashes the library: {_end(child)}"
            raise ReadError(path, f"{failure} ({why}); the file is damaged, copy or download it again") from error
        finally:
            timer.cancel()
            if not sound or child.late:  # Ctrl-C, too: the rest of the answer would be taken for the next one
                child.kill()
                _children.pop(os.getpid(), None)


def _end(child: ReadingChild) -> str:
    try:
        code = child.process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "no answer"
    return f"signal {-code}" if code < 0 else f"status {code}"


def _running() -> ReadingChild:
    child = _children.get(os.getpid())
    if child is not None and child.process.poll() is not None:
        child.kill()  # it is dead: this closes its pipes
        child = None
    if child is None:
        child = _children[os.getpid()] = ReadingChild()
    return child


def stop() -> None:
    """End the child of this process; the next file starts a new one."""
    child = _children.pop(os.getpid(), None)
    if child is not None:
        child.kill()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it at the fork


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
