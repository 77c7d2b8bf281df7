"""RDMs, their comparison and noise ceilings against rsatoolbox, on random patterns.

    python scripts/benchmarks/oracles/similarity.py --peer PYTHON

PYTHON is the interpreter of an environment with rsatoolbox (0.3.2 needs numpy below 2). Patterns
are drawn here and written to a file, the peer answers in its own process, and the largest
difference of each quantity is printed with the peer's versions.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from clinode.similarity import compare, noise_ceiling, rdm, rdm_from_vector
from clinode.similarity.compare import MEASURES

PEER = """
import json, sys
import numpy as np
from importlib.metadata import version
from rsatoolbox.data import Dataset
from rsatoolbox.inference import cv_noise_ceiling, boot_noise_ceiling
from rsatoolbox.rdm import RDMs, calc_rdm, compare
given = np.load(sys.argv[1])
found = {}
n = given["patterns"].shape[1]
rows = given["patterns"].reshape(-1, given["patterns"].shape[2])
described = {"stimulus": np.tile(np.arange(n), len(given["patterns"])),
             "fold": np.repeat(np.arange(len(given["patterns"])), n)}
data = Dataset(rows, obs_descriptors=described)
one = Dataset(given["patterns"][0], obs_descriptors={"stimulus": np.arange(n)})
found["euclidean"] = calc_rdm(one, "euclidean").dissimilarities[0]
found["correlation"] = calc_rdm(one, "correlation").dissimilarities[0]
found["mahalanobis"] = calc_rdm(one, "mahalanobis", noise=given["precision"]).dissimilarities[0]
found["crossnobis"] = calc_rdm(data, "crossnobis", descriptor="stimulus", cv_descriptor="fold",
                               noise=given["precision"]).dissimilarities[0]
a, b = RDMs(given["first"][None]), RDMs(given["second"][None])
for method in ("cosine", "corr", "spearman", "rho-a", "tau-a", "cosine_cov", "corr_cov"):
    found["compare " + method] = compare(a, b, method=method).ravel()
ceilings = RDMs(given["subjects"])
for method in ("cosine", "corr", "rho-a"):
    found["ceiling " + method] = np.array(boot_noise_ceiling(ceilings, method=method))
print(json.dumps({"rsatoolbox": version("rsatoolbox"), "numpy": np.__version__,
                  "found": {k: np.asarray(v).tolist() for k, v in found.items()}}))
"""


def main():
    """Draw, ask both, print the largest differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, help="interpreter with rsatoolbox")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    worst, versions = {}, {}
    for seed in range(args.seeds):
        draw = np.random.default_rng(seed)
        n, p, folds = int(draw.integers(5, 14)), int(draw.integers(4, 20)), 3
        root = draw.normal(size=(p, p))
        given = {
            "patterns": draw.normal(size=(folds, n, p)),
            "precision": np.linalg.inv(root @ root.T + p * np.eye(p)),
            "first": draw.random(n * (n - 1) // 2),
            "second": np.round(draw.random(n * (n - 1) // 2), 1),
            "subjects": draw.random((5, n * (n - 1) // 2)),
        }
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "given.npz"
            np.savez(path, **given)
            told = subprocess.run(
                [args.peer, "-W", "ignore", "-c", PEER, str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
        answer = json.loads(told.stdout.splitlines()[-1])
        versions = {name: answer[name] for name in ("rsatoolbox", "numpy")}
        for name, value in ours(given).items():
            apart = float(np.abs(value - np.array(answer["found"][name])).max())
            worst[name] = max(worst.get(name, 0.0), apart)
    print(f"rsatoolbox {versions['rsatoolbox']}, numpy {versions['numpy']}, {args.seeds} draws")
    for name, apart in worst.items():
        print(f"{name:22s} {apart:.1e}")


def ours(given):
    """The same quantities by clinode."""
    patterns, precision = given["patterns"], torch.tensor(given["precision"])
    folds, n, p = patterns.shape
    flat, stimulus = patterns.reshape(-1, p), np.tile(np.arange(n), folds)
    fold = np.repeat(np.arange(folds), n)
    crossed = rdm(flat, "crossnobis", precision=precision, stimulus=stimulus, fold=fold)
    found = {
        "euclidean": rdm(patterns[0]),
        "correlation": rdm(patterns[0], "correlation"),
        "mahalanobis": rdm(patterns[0], "mahalanobis", precision=precision),
        "crossnobis": crossed,
    }
    found = {name: one.dissimilarities.numpy() for name, one in found.items()}
    a, b = rdm_from_vector(given["first"]), rdm_from_vector(given["second"])
    for method in MEASURES:
        found[f"compare {method}"] = np.array([compare(a, b, method).value])
    subjects = [rdm_from_vector(row) for row in given["subjects"]]
    for method in ("cosine", "corr", "rho-a"):
        ceiling = noise_ceiling(subjects, method)
        found[f"ceiling {method}"] = np.array([ceiling.lower, ceiling.upper])
    return found


if __name__ == "__main__":
    main()
