"""The largest scan of the benchmark stays within its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, resource, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
import torch
from deft_ct.operators.ct import ParallelGeometry, RayTransform
op = RayTransform(ParallelGeometry.for_image((512, 512), 0.75, 1000))
x = torch.rand(8, 512, 512)
with torch.no_grad():
    z = op.adjoint(op(x))
assert bool(torch.isfinite(z).all())
print("peak GiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_thousand_views_of_512_pixels_stay_below_6_gib():
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert float(out.split("peak GiB")[1]) < 6
    assert "because the matrices take up to" in out  # the choice is said in the log
    assert "above the cache-friendly limit" in out or "too much" in out or "GPU" in out
