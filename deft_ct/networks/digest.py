"""Content hashes of networks."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from deft_ct.runtime.content_key import content_digest


def content_hash(network: nn.Module, description: dict[str, Any]) -> str:
    """SHA-256 of a description (JSON-ready) and of the weights in float16, the precision in which they are stored."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all weights as they are in memory, for content keys; :func:`content_hash` rounds them."""
    return content_digest(item for pair in sorted(network.state_dict().items()) for item in pair)
