"""Captum, time_interpret and shap on the sets of `clinode bench attribution`, by one adapter.

    python scripts/benchmarks/oracles/attribution.py --peer PYTHON [--peer PYTHON] [--sets NAMES]

PYTHON is the interpreter of an environment with torch (of this version) and captum, time-interpret
or shap; it runs what it has. Each function is handed over as TorchScript with its inputs, the peer
gives back one number an entry, and all maps are scored here. Of irregular records a peer explains
the filled grid, value and mask of every cell, since it knows no events. Its map is ranked twice:
cells nobody measured left out, which takes a mask that the map does not have, and whole. The share
of |attribution| that fell on such cells is told beside it.
"""

import argparse
import json
import subprocess
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from clinode.attribution.bench import SETS, measure, score_map, unmeasured_share
from clinode.attribution.bench.problem import Problem
from clinode.attribution.bench.sets import SMALL

PEER = """
import importlib.util, json, sys, time
from importlib.metadata import version
import numpy as np, torch
folder = sys.argv[1]
plan = json.load(open(folder + "/plan.json"))
has = lambda name: importlib.util.find_spec(name) is not None
given = np.load(folder + "/inputs.npz")
x, base = torch.from_numpy(given["x"]), torch.from_numpy(given["baseline"])
torch.manual_seed(0); np.random.seed(0); torch.set_num_threads(1)
methods, versions = {}, {"torch": torch.__version__}
if has("tint"):
    import tint.attr as tint
    versions["time_interpret"] = version("time_interpret")
    methods["tint Occlusion"] = lambda f, x, b: tint.Occlusion(f).attribute(
        x, sliding_window_shapes=(1, 1), baselines=b, perturbations_per_eval=64)
    methods["tint AugmentedOcclusion"] = lambda f, x, b: tint.AugmentedOcclusion(
        f, data=given_x, n_sampling=10).attribute(x, sliding_window_shapes=(1, 1))
elif has("captum"):
    import captum.attr as captum
    versions["captum"] = version("captum")
    methods["captum IntegratedGradients"] = lambda f, x, b: captum.IntegratedGradients(
        f).attribute(x, baselines=b)
    methods["captum GradientShap"] = lambda f, x, b: captum.GradientShap(f).attribute(
        x, baselines=b, n_samples=50)
    methods["captum FeatureAblation"] = lambda f, x, b: captum.FeatureAblation(f).attribute(
        x, baselines=b, perturbations_per_eval=64)
    methods["captum ShapleyValueSampling"] = lambda f, x, b: (
        captum.ShapleyValueSampling(f).attribute(
            x, baselines=b, n_samples=5, perturbations_per_eval=64))
if has("shap"):
    import shap
    versions["shap"] = version("shap")
    class Column(torch.nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f = f
        def forward(self, x):
            return self.f(x).unsqueeze(1)
    def expected(f, x, b):
        out = shap.GradientExplainer(Column(f), b[:1]).shap_values(x, nsamples=50)
        return torch.from_numpy(np.asarray(out).reshape(x.shape))
    def permutation(f, x, b):
        def of_rows(rows):
            with torch.no_grad():
                return f(torch.from_numpy(rows).reshape(-1, *x.shape[1:])).numpy()
        size = x[0].numel()
        explain = shap.PermutationExplainer(of_rows, b[:1].reshape(1, -1).numpy())
        told = explain(x.reshape(len(x), -1).numpy(), max_evals=2 * size + 1, silent=True)
        return torch.from_numpy(told.values.reshape(x.shape))
    methods["shap GradientExplainer"] = expected
    methods["shap PermutationExplainer"] = permutation
given_x = x
answers, seconds, failed = {}, {}, {}
for name, method in methods.items():
    if plan["wanted"] and not any(word in name for word in plan["wanted"]):
        continue
    start, maps = time.perf_counter(), []
    try:
        for number, (low, high) in enumerate(plan["pieces"]):
            f = torch.jit.load(folder + "/piece%d.pt" % number)
            maps.append(method(f, x[low:high].clone(), base[low:high]).detach().double().numpy())
    except Exception as wrong:
        failed[name] = type(wrong).__name__ + ": " + str(wrong)[:150]
        continue
    answers[name], seconds[name] = np.concatenate(maps), (time.perf_counter() - start) / len(x)
np.savez(folder + "/answers.npz", **answers)
print(json.dumps({"versions": versions, "seconds": seconds, "failed": failed}))
"""


class _Flat(torch.nn.Module):
    """A function of (row, step, entry), whatever shape its own rows have."""

    def __init__(self, function, shape, summed):
        super().__init__()
        self.function, self.shape, self.summed = function, shape, summed

    def forward(self, x):
        if self.summed:  # (row, step, 2 variable) -> (row, 2, step, variable)
            rows, steps, width = x.shape
            x = x.reshape(rows, steps, 2, width // 2).transpose(1, 2)
        elif len(self.shape) == 1:
            x = x[..., 0]
        return self.function(x)


def handed_over(problem: Problem, folder: Path, wanted: list[str]) -> None:
    """Write the functions and the inputs of a problem where a peer finds them."""
    x, base = (_of_steps(problem, part) for part in (problem.x, problem.reference))
    np.savez(folder / "inputs.npz", x=x.numpy(), baseline=base.numpy())
    pieces = []
    for number, (rows, function) in enumerate(problem.pieces):
        flat = _Flat(function, tuple(problem.x.shape[1:]), problem.summed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is old, and says so
            traced = torch.jit.trace(flat.forward, torch.cat([x[rows], x[rows]]), check_trace=False)
            torch.jit.save(traced, str(folder / f"piece{number}.pt"))
        pieces.append([rows.start, rows.stop])
    (folder / "plan.json").write_text(json.dumps({"pieces": pieces, "wanted": wanted}))


def _of_steps(problem: Problem, x: torch.Tensor) -> torch.Tensor:
    if problem.summed:
        return x.transpose(1, 2).reshape(len(x), x.shape[2], -1).contiguous()
    return x.unsqueeze(2) if x.ndim == 2 else x.contiguous()


def _back(problem: Problem, values: np.ndarray) -> np.ndarray:
    if problem.summed:
        return values.reshape(*values.shape[:2], 2, -1).sum(axis=2)
    return values.reshape(problem.x.shape)


def _some(problem: Problem, n: int) -> Problem:
    """The first n subjects; of a problem with one piece, or one a subject."""
    n = min(n, len(problem.x))
    pieces = tuple((slice(r.start, min(r.stop, n)), f) for r, f in problem.pieces if r.start < n)
    part = {"truth": problem.truth[:n], "x": problem.x[:n], "pieces": pieces}
    if problem.measured is not None:
        part["measured"] = problem.measured[:n]
    if problem.exact is not None:
        part["exact"] = problem.exact[:n]
    return replace(problem, **part)


def main():
    """Fit once a set, ask clinode and every peer, score all alike."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, action="append", help="interpreter of a peer")
    parser.add_argument("--sets", default="rare_feature,ornstein,state,irregular_value")
    parser.add_argument("--methods", default="", help="parts of names of a peer's methods")
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [word for word in args.methods.split(",") if word]
    print(
        "set, method: AUPRC of measured cells, of all, AUROC, % on unmeasured cells, ms a subject"
    )
    for name in args.sets.split(","):
        views = SETS[name].make(args.seed, args.quick, SMALL, None)
        views = {view: _some(problem, args.subjects) for view, problem in views.items()}
        for method in ("integrated_gradients", "event_deletion", "shapley"):
            if method == "shapley" and "deletion" not in views:
                continue  # on whole grids it takes minutes
            is_away = method != "integrated_gradients" and "deletion" in views
            row = measure(views["deletion" if is_away else "events"], method)
            if row.scores is not None:
                whole = row.scores.auprc  # nothing lies on cells that nobody measured
                told(name, f"clinode {method}", row.scores, whole, row.unmeasured, row.seconds)
        problem = views.get("grid", views["events"])
        with tempfile.TemporaryDirectory() as scratch:
            handed_over(problem, Path(scratch), wanted)
            for peer in args.peer:
                ran = subprocess.run(
                    [peer, "-W", "ignore", "-c", PEER, scratch],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if ran.returncode:
                    raise SystemExit(f"the peer failed:\n{ran.stderr[-2000:]}")
                answer = json.loads(ran.stdout.splitlines()[-1])
                print("#", ", ".join(f"{k} {v}" for k, v in answer["versions"].items()))
                maps = np.load(Path(scratch) / "answers.npz")
                for method in maps.files:
                    cells = _back(problem, maps[method])
                    scores = score_map(cells, problem.truth, problem.measured)
                    share = unmeasured_share(cells, problem.measured)
                    whole = score_map(cells, problem.truth).auprc
                    told(name, method, scores, whole, share, answer["seconds"][method])
                for method, why in answer["failed"].items():
                    print(f"{name}, {method}: failed: {why}")


def told(name, method, scores, whole, unmeasured, seconds):
    """One line of the table."""
    print(
        f"{name}, {method}: {scores.auprc:.3f}, {whole:.3f}, {scores.auroc:.3f}, "
        f"{100 * unmeasured:.1f}, {1000 * seconds:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
