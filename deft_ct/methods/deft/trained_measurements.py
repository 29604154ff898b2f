"""The measurements that an h-transform was trained for, kept in its card, and which others it can be used with.

A network is given images that the operator declares, see ``Operator.feature_images``. A parameter of the operator of
the same name, such as a mask, may then be another one than in the training. So may parameters that varied in it:
an h-transform that has seen many blur kernels takes one more, and one for noise of 0.02 to 0.1 takes 0.05. Everything
else must be as it was. Images of another size are a finding, because the network is convolutional.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import max_pool2d

from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.findings import Finding
from deft_ct.runtime.plain_values import plain

MEASUREMENTS = "measurements"
"""Key of the card."""
MEASURED_RATIO = 2.0
"""Largest ratio of the sides of images to those of the training at which the shipped networks were measured."""
_ANY = "any"
_TOLERANCE = 1e-6


def measurement_entries(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """What the card of an h-transform keeps of the measurements of its training, JSON-ready.

    Args:
        measurements: of the training. Each kind of operator gets one entry. Where its measurements differ in a number,
            the entry holds the range; in a word, the list; in anything else, that it is ``"any"``.
    """
    kinds: dict[str, list[dict[str, Any]]] = {}
    for measurement in measurements:
        kinds.setdefault(_kind(measurement), []).append(_values(measurement))
    shapes = {_kind(measurement): list(measurement.operator.domain_shape) for measurement in measurements}
    return [
        {
            "operator": kind, "image_shape": shapes[kind],
            "values": {name: _merged([one.get(name) for one in found]) for name in sorted(set().union(*found))},
        }
        for kind, found in kinds.items()
    ]  # fmt: skip


def other_measurement(card: Mapping[str, Any], measurement: Measurement, seen: Collection[str]) -> str | None:
    """How a measurement differs from those of the training; None if it does not, or if the card names none.

    Args:
        card: of the h-transform.
        measurement: the given one.
        seen: names of the images that the network is given of the operator.
    """
    entries = card.get(MEASUREMENTS)
    if not entries:
        return None
    kind, own = _kind(measurement), _values(measurement)
    trained = [entry for entry in entries if entry["operator"] == kind]
    if not trained:
        return f"it was trained for {' and '.join(entry['operator'] for entry in entries)}, not for {kind}"
    entry = trained[0]
    resized = entry["image_shape"] != list(measurement.operator.domain_shape)

    def order(name: str) -> tuple[bool, bool, str]:
        """Kind of the noise first, then numbers and words, which make better messages than tensors."""
        return isinstance(own.get(name), list) or _is_digest(own.get(name)), not name.endswith(".type"), name

    for name in sorted(set(own) | set(entry["values"]), key=order):
        expected, got = entry["values"].get(name), own.get(name)
        last = name.rsplit(".", 1)[-1]
        depends_on_size = isinstance(expected, list) or isinstance(got, list) or _is_digest(expected)
        if last in seen or (resized and depends_on_size) or _fits(expected, got):
            continue
        if _is_digest(expected) or _is_digest(got):
            return f"it was trained for {kind} with another {last}"
        return f"it was trained for {kind} with {last} {_words(expected)}, not {_words(got)}"
    return None


def other_size(card: Mapping[str, Any], measurement: Measurement) -> Finding | None:
    """That an h-transform was trained for images of another size; None if it was not, or if the card names none."""
    shape = list(measurement.operator.domain_shape)
    trained = [entry["image_shape"] for entry in card.get(MEASUREMENTS) or ()]
    if not trained or shape in trained:
        return None
    size, own = (" x ".join(map(str, sides[1:])) for sides in (trained[0], shape))
    return Finding(
        "another image size", f"the h-transform was trained for images of {size} pixels and these have {own}; "
        "what depends on the whole image may be worse"
    )  # fmt: skip


def much_larger(trained: Sequence[int], own: Sequence[int]) -> Finding | None:
    """That images are more than :data:`MEASURED_RATIO` times as wide as those of the training; None if they are not.

    Args:
        trained: shape of the images of the prior, ``(C, H, W)``.
        own: shape of the images at hand.
    """
    ratio = max(mine / known for known, mine in zip(trained[-2:], own[-2:], strict=True))
    if ratio <= MEASURED_RATIO:
        return None
    size, here = (" x ".join(map(str, sides[-2:])) for sides in (trained, own))
    return Finding(
        "another image size", f"the networks were trained for images of {size} pixels and measured up to twice that "
        f"size; these have {here}: quality is not known, a smaller size is on the safe side"
    )  # fmt: skip


def wide_hole(measurement: Measurement, y: Tensor, side: int) -> Finding | None:
    """That pixels are missing farther from the observed ones than tiles show; None if they are not.

    Args:
        measurement: of images that the networks see in tiles.
        y: the data.
        side: of a tile in pixels. In the training half of a side was missing at most.
    """
    operator = measurement.operator
    names = [image.name for image in operator.feature_images if not image.of_estimate]
    if "mask" not in names or len(operator.domain_shape) != 3:
        return None
    observed = operator.data_images(y)[:, names.index("mask")].amax(dim=1, keepdim=True)
    reach = side // 4
    far = int((max_pool2d(observed, 2 * reach + 1, stride=1, padding=reach) == 0).sum())
    if not far:
        return None
    return Finding(
        "wide hole", f"{far} pixels are farther than {reach} from all that is observed; the networks see tiles of "
        f"{side} x {side} pixels and cannot continue the picture there: restore a smaller copy of it"
    )  # fmt: skip


def _kind(measurement: Measurement) -> str:
    """Name of the operator, with those that it is composed of."""
    return _named(measurement.operator.describe())


def _named(described: Mapping[str, Any]) -> str:
    inner = described.get("of")
    parts = [inner] if isinstance(inner, Mapping) else inner or []
    return str(described["operator"]) + (f"({', '.join(map(_named, parts))})" if parts else "")


def _values(measurement: Measurement) -> dict[str, Any]:
    """Everything that the data depend on, by dotted names."""
    found: dict[str, Any] = {}
    _flatten("", plain(measurement_content(measurement)), found)
    return {name: value for name, value in found.items() if name != "operator" and not name.startswith("of.")}


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, into)
    else:
        into[prefix] = value


def _merged(values: list[Any]) -> Any:
    first = values[0]
    if all(value == first for value in values):
        return first
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"from": min(values), "to": max(values)}
    if all(isinstance(value, str) and not _is_digest(value) for value in values):
        return {"one_of": sorted(set(values))}
    return _ANY


def _fits(expected: Any, got: Any) -> bool:
    if expected == _ANY or expected == got:
        return True
    if isinstance(expected, Mapping):
        if "one_of" in expected:
            return got in expected["one_of"]
        low, high = expected["from"], expected["to"]
        return isinstance(got, int | float) and _not_above(low, got) and _not_above(got, high)
    numbers = isinstance(expected, int | float) and isinstance(got, int | float)
    return numbers and _not_above(expected, got) and _not_above(got, expected)


def _not_above(low: float, high: float) -> bool:
    return low <= high + _TOLERANCE * abs(high)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 32 and not set(value) - set("0123456789abcdef")


def _words(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "none" if value is None else str(value)
    return " or ".join(value["one_of"]) if "one_of" in value else f"from {value['from']} to {value['to']}"
