"""What the studies of trained networks set by rule."""

from __future__ import annotations

import numpy as np
import pytest

from deft_ct.datasets.halved import halved_scan
from deft_ct.workflows.experiments.study import initial_error


def test_the_initial_error_of_a_network_for_one_scan_follows_the_rule() -> None:
    usual = initial_error(halved_scan("parallel60_1e5").unit_measurement((128, 128), 3.0))
    few = initial_error(halved_scan("parallel15_1e5").unit_measurement((128, 128), 3.0))
    assert usual == pytest.approx(0.04, abs=1e-4) and few == pytest.approx(0.04 * np.exp(0.6), rel=1e-3)
