"""Exact Shapley values beside those of `shap.ExactExplainer`, on random functions of few entries.

    python scripts/benchmarks/oracles/shapley.py --peer PYTHON [--functions 20]

PYTHON is the interpreter of an environment with shap and numpy. A function is tanh of a random
quadratic form, so entries act together; both sides get its coefficients, the same entries and the
same baseline, and the largest difference of any value is printed.
"""

import argparse
import json
import subprocess

import numpy as np
import torch

import clinode as cn

PEER = """
import json, sys
from importlib.metadata import version
import numpy as np, shap
found = []
for told in json.load(sys.stdin):
    Q, b, x, base = (np.array(told[name]) for name in ("Q", "b", "x", "baseline"))
    def function(rows):
        return np.tanh(np.einsum("ri,ij,rj->r", rows, Q, rows) + rows @ b)
    explain = shap.explainers.Exact(function, shap.maskers.Independent(base[None, :]))
    found.append(explain(x[None, :]).values[0].tolist())
print(json.dumps({"shap": version("shap"), "numpy": np.__version__, "values": found}))
"""


def main() -> None:
    """Ask both sides and print how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="interpreter of the peer")
    parser.add_argument("--functions", type=int, default=20)
    args = parser.parse_args()
    draw = np.random.default_rng(0)
    functions = []
    for n in draw.integers(2, 11, args.functions):
        functions.append(
            {
                "Q": draw.normal(size=(n, n)) / n,
                "b": draw.normal(size=n) / np.sqrt(n),
                "x": draw.normal(size=n),
                "baseline": draw.normal(size=n),
            }
        )
    text = json.dumps([{name: part.tolist() for name, part in one.items()} for one in functions])
    ran = subprocess.run(
        [args.peer, "-W", "ignore", "-c", PEER], input=text, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"the peer failed:\n{ran.stderr[-2000:]}")
    peer = json.loads(ran.stdout.splitlines()[-1])
    apart = [
        float(np.abs(ours(one) - np.array(values)).max())
        for one, values in zip(functions, peer["values"], strict=True)
    ]
    print(f"clinode {cn.__version__}, torch {torch.__version__}")
    print(f"shap {peer['shap']}, numpy {peer['numpy']}")
    print(f"{len(apart)} functions of 2 to 10 entries: largest difference {max(apart):.1e}")


def ours(one: dict[str, np.ndarray]) -> np.ndarray:
    """The same values by `attribute`."""
    Q, b, x, baseline = (torch.from_numpy(one[name]) for name in ("Q", "b", "x", "baseline"))

    def function(rows: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.einsum("ri,ij,rj->r", rows, Q, rows) + rows @ b)

    found = cn.attribution.attribute(function, x[None], baseline[None], method="shapley")
    return found.values[0].numpy()


if __name__ == "__main__":
    main()
