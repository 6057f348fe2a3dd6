from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from working import BODY

from domain.codes import MILLILITRE, Code
from domain.findings import Findings, Measurement


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.zeros((4, 4), np.uint8), "3 axes"),
        (np.zeros((2, 4, 4), np.int16), "uint8"),
        (np.zeros((2, 4, 4), bool), "uint8"),
        (np.full((2, 4, 4), 2, np.uint8), "no segment"),
    ],
)
def test_labels_that_mean_nothing_are_no_findings(labels: npt.NDArray[np.uint8], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Findings(labels=labels, segments=(BODY,))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_measurement_is_a_number(value: float) -> None:
    measured = Measurement(segment="body", concept=Code("118565006", "SCT", "Volume"), value=value, unit=MILLILITRE)
    with pytest.raises(ValueError, match="finite"):
        Findings(labels=None, segments=(BODY,), measurements=(measured,))
