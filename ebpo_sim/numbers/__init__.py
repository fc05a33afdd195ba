"""Closed forms, moments and mixtures: plain arithmetic that every room above stands on."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
