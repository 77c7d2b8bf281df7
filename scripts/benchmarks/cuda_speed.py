"""Training steps of every family on a GPU beside one CPU thread; the recurrence as a CUDA graph.

    OMP_NUM_THREADS=1 python scripts/benchmarks/cuda_speed.py [--sizes 50 500] [--only FAMILY ...]

Records are those of `sequence_speed.py`. A step is zero_grad, loss, backward and optimiser; medians
of up to 15 after two that do not count. The graph holds loss and backward of the ODE-RNN layer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sequence_speed import CHANNELS, SCHEMES, STATES, OwnGaps, apart, built, made_up_records
from torch import Tensor
from union_grid import UnionODERNN

from clinode.cohort import PackedRecords
from clinode.sequence import MODELS


def milliseconds(step: Callable[[], object], seconds: float = 3.0) -> float:
    """Median of a call, with the work of the GPU awaited."""
    step()
    step()
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < 3 or (len(took) < 15 and time.perf_counter() < end):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return 1e3 * statistics.median(took)


def training_step(name: str, records: PackedRecords, n: int, device: str) -> Callable[[], None]:
    """A step of a family at its default sizes on the first n records."""
    model = built(name, records).to(device)
    batch = records.batch(np.arange(n)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, foreach=True)
    generator = torch.Generator(device=device).manual_seed(0)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(batch, generator).backward()
        optimizer.step()

    return step


def graph_row(records: PackedRecords, scheme: str, n: int) -> str:
    """Loss and backward of the ODE-RNN layer: CPU, GPU as it runs, GPU replayed from a graph."""
    torch.manual_seed(0)
    batch, model = records.batch(np.arange(n)), UnionODERNN(STATES, CHANNELS)

    def gradient() -> Tensor:
        return torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])

    def step(own: OwnGaps) -> None:
        model.zero_grad()
        own.loss(batch).backward()

    on_cpu = milliseconds(lambda: step(OwnGaps(model, scheme)))
    wanted = gradient()
    model, batch = model.cuda(), batch.to("cuda")
    own = OwnGaps(model, scheme)
    eager = milliseconds(lambda: step(own))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(own)
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        own.loss(batch).backward()
    replay = milliseconds(graph.replay)
    far = apart(gradient(), wanted)
    return f"| {scheme}, {n} | {on_cpu:.1f} | {eager:.1f} | {replay:.1f} | {far:.1e} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 500])
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS))
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "this machine has no CUDA\n")
    torch.set_num_threads(1)
    records = made_up_records()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| family, batch | one CPU thread, ms | GPU, ms |\n|---|---|---|")
    for name in asked.only:
        for n in asked.sizes:
            both = [milliseconds(training_step(name, records, n, d)) for d in ("cpu", "cuda")]
            print(f"| {name}, {n} | {both[0]:.1f} | {both[1]:.1f} |", flush=True)
    print("\n| ODE-RNN layer | CPU, ms | GPU, ms | replayed, ms | gradients apart |")
    print("|---|---|---|---|---|")
    for scheme in SCHEMES:
        for n in asked.sizes:
            print(graph_row(records, scheme, n), flush=True)


if __name__ == "__main__":
    main()
