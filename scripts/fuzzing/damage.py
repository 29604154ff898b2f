"""Damage to a case: bytes, values of JSON, words of options, members of archives."""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import struct
import warnings
import zipfile
import zlib
from typing import Any

from fuzzing.sound_files import Case

_NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
_FLOATS = (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300, 1e-300, 1e12)
_JSON = (
    None,
    True,
    -1,
    0,
    2**40,
    10**30,
    1.5,
    math.nan,
    math.inf,
    "",
    "x",
    [],
    {},
    [[]],
    {"a": []},
    [1, 2, 3],
    "1e400",
)
_WORDS = (
    "tv", "sirt", "cgls", "fbp", "dps", "deft", "strength", "iterations", "tolerance", "cutoff", "views", "zeta",
    "steps", "filter", "seed", "=", ":", ",", "|", "1", "0", "-1", "2.5", "1e3", "1e30", "nan", "inf", "None", "True",
    "{}", "[", "]", "(", ")", "{[]:1}", "é", "\0", " ", "9" * 5000, "1e400",
    "parallel", "60", "_1e5", "_from45",
    "_120deg", "fan",
)  # fmt: skip


def mutated(case: Case, rng: random.Random) -> Case:
    """The case with one of its files damaged."""
    name = rng.choice(sorted(case))
    data = case[name]
    if name == "text":
        return {name: _text(data.decode("utf-8", "replace"), rng).encode("utf-8", "replace")}
    if name.endswith(".json") and rng.random() < 0.7:
        return {**case, name: _json(data, rng)}
    if name.endswith(".gz") and rng.random() < 0.7:
        try:
            return {**case, name: gzip.compress(_bytes(gzip.decompress(data), rng), 1)}
        except (OSError, EOFError, ValueError, zlib.error):
            pass
    if name.endswith(".zip") and rng.random() < 0.6:
        return {**case, name: _zipped(data, rng)}
    return {**case, name: _bytes(data, rng)}


def _bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        if not out:
            break
        at, kind = rng.randrange(len(out)), rng.randrange(9)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind in (2, 3):
            size = rng.choice("BHIQ")
            value = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(size))
            raw = struct.pack(rng.choice("<>") + size, value)
            out[at : at + len(raw)] = raw
        elif kind == 4:
            raw = struct.pack(rng.choice("<>") + rng.choice("fd"), rng.choice(_FLOATS[:5]))
            out[at : at + len(raw)] = raw
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6:
            del out[at : at + rng.randrange(1, 64)]
        elif kind == 7:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + rng.randrange(1, 64)]
        else:
            start, length = rng.randrange(len(out)), rng.randrange(1, 32)
            out[at : at + length] = out[start : start + length]
    return bytes(out)


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    for _ in range(rng.randrange(1, 3)):
        if not places:
            return json.dumps(rng.choice(_JSON)).encode()
        node, key = rng.choice(places)
        action = rng.random()
        if action < 0.7 or isinstance(node, list):
            try:
                node[key] = rng.choice(_JSON)
            except IndexError:
                continue
        elif action < 0.85:
            node.pop(key, None)
        else:
            node[rng.choice(("typo", "", "kind", "é"))] = rng.choice(_JSON)
    return json.dumps(content).encode()


def _text(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 12)))
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(_WORDS) + text[place + rng.randrange(4) :]


def _zipped(data: bytes, rng: random.Random) -> bytes:
    """The archive with a damaged member, or one under another name."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = [(info.filename, archive.read(info)) for info in archive.infolist()[:50]]
            with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as made:
                chosen = rng.randrange(max(len(members), 1))
                for n, (name, content) in enumerate(members):
                    if n == chosen:
                        name = rng.choice((name, members[0][0], "../x.dcm", "/etc/x", "DICOMDIR", "a\\b", "é"))
                        content = _bytes(content, rng)
                    made.writestr(name, content)
    except Exception:  # noqa: BLE001 - the seed may be damaged in any way
        return _bytes(data, rng)
    return out.getvalue()


def case_number(number: int, name: str, seed: int, known: list[Case]) -> Case:
    """The case of a number: the seeds as they are, then damaged ones."""
    if number < len(known):
        return known[number]
    rng = random.Random(f"{seed}-{name}-{number}")
    case = mutated(known[0] if rng.random() < 0.5 else rng.choice(known), rng)
    return mutated(case, rng) if rng.random() < 0.2 else case
