import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from clinode.attribution.draws import seeded


def drawn(seed: int) -> tuple[float, float]:
    with seeded(seed):
        time.sleep(0.002)  # others come in between, if they may
        first = torch.rand(()).item()
        time.sleep(0.002)
        return first, float(np.random.rand())  # noqa: NPY002


def test_threads_draw_what_each_draws_alone():
    alone = [drawn(seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(drawn, range(12))) == alone


def test_the_callers_numbers_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(()).item(), float(np.random.rand())  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    drawn(0)
    assert (torch.rand(()).item(), float(np.random.rand())) == expected  # noqa: NPY002
