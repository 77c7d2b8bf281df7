"""Random draws of a library that knows only the global generators."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_ONE_AT_A_TIME = threading.RLock()  # subjects may be explained by threads, which share generators


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch and numpy, and set them back; threads take turns.

    Captum draws from them: Gradient SHAP its baselines from numpy's, Kernel SHAP its coalitions
    from torch's.
    """
    with _ONE_AT_A_TIME:
        held = np.random.get_state()  # noqa: NPY002
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            try:
                yield
            finally:
                np.random.set_state(held)  # noqa: NPY002
