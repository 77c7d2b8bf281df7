"""What an attribution costs and how wrong it is: the adaptive path beside Captum's fixed steps.

    python scripts/benchmarks/attribution_rows.py latching [--subjects 100]
    python scripts/benchmarks/attribution_rows.py families [--subjects 300] [--only gru-d ...]

`latching`: a GRU on a forward-filled grid (48 h, 5 variables, 12 % observed) learns an alarm ("ever
above 0.9"); its state latches, so the output jumps along the path. Errors are against 10,000
Gauss-Legendre nodes in float64. `families`: every family of models, fitted shortly on simulated
patients; the error is the completeness gap, known exactly. A row is one evaluation of the model,
with or without a gradient.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import clinode as cn
from clinode.attribution.methods import MethodConfig, RowAttributions, explain_rows
from clinode.attribution.path import row_gradients
from clinode.sequence import MODELS, model_from_config

N_HOURS, N_VARIABLES, OBSERVED, ALARM = 48, 5, 0.12, 0.9
STEPS = (50, 200, 800)
TOLERANCE = 0.01


class AlarmGRU(nn.Module):
    """Log odds of an alarm from a grid (record, hour, variable)."""

    def __init__(self, hidden: int = 16):
        super().__init__()
        self.cell = nn.GRU(N_VARIABLES, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 1)

    def forward(self, grid: Tensor) -> Tensor:
        return self.out(self.cell(grid)[0][:, -1])[:, 0]


def alarms(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Values that wander, which of them were observed, and whether one of the first was high."""
    noise = torch.randn(n, N_HOURS, N_VARIABLES, generator=generator)
    value = torch.empty_like(noise)
    value[:, 0] = noise[:, 0]
    for hour in range(1, N_HOURS):
        value[:, hour] = 0.9 * value[:, hour - 1] + (1 - 0.81) ** 0.5 * noise[:, hour]
    seen = torch.rand(n, N_HOURS, N_VARIABLES, generator=generator) < OBSERVED
    alarm = ((value[:, :, 0] > ALARM) & seen[:, :, 0]).any(1)
    return value * seen, seen, alarm.float()


def sources(seen: Tensor) -> Tensor:
    """Of each cell the flat cell whose value a forward fill shows there; -1 before the first."""
    hour = torch.arange(N_HOURS)[None, :, None].expand_as(seen)
    last = torch.where(seen, hour, -1).cummax(dim=1).values
    flat = last * N_VARIABLES + torch.arange(N_VARIABLES)
    return torch.where(last >= 0, flat, -1)


def filled(rows: Tensor, source: Tensor) -> Tensor:
    """The grid of flat rows, each cell as the fill shows it."""
    cells = source.flatten(1)
    shown = rows.gather(1, cells.clamp(min=0))
    return torch.where(cells >= 0, shown, 0.0).reshape(-1, N_HOURS, N_VARIABLES)


def trained(generator: torch.Generator) -> tuple[AlarmGRU, float]:
    """The alarm, fitted, and its AUROC on others."""
    torch.manual_seed(0)
    model = AlarmGRU()
    value, seen, alarm = alarms(4000, generator)
    grid = filled(value.flatten(1), sources(seen))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(25):
        for part in torch.randperm(len(grid), generator=generator).split(200):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(grid[part]), alarm[part])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    value, seen, alarm = alarms(1000, generator)
    with torch.no_grad():
        logit = model(filled(value.flatten(1), sources(seen)))
    return model.double().requires_grad_(False), float(roc_auc_score(alarm, logit))


def reference(function: Any, x: Tensor, intervals: int = 2000) -> Tensor:
    """Integrated gradients against zero by five Gauss-Legendre nodes in each of many intervals."""
    roots, weights = np.polynomial.legendre.leggauss(5)
    start = np.arange(intervals)[:, None]
    alpha = torch.from_numpy(((start + (roots + 1) / 2) / intervals).ravel())
    weight = torch.from_numpy(np.tile(weights / 2 / intervals, intervals))
    total = torch.zeros_like(x)
    for row in range(len(x)):
        for part in torch.arange(len(alpha)).split(2500):
            rows = alpha[part, None] * x[row]
            which = torch.full((len(part),), row)
            total[row] += weight[part] @ row_gradients(function, rows, which) * x[row]
    return total


def told(found: RowAttributions, seconds: float, truth: Tensor | None = None) -> dict[str, Any]:
    """Rows, gaps and errors of one method over subjects."""
    gap = np.where(np.isfinite(found.gap), found.gap, np.inf)
    result = {
        "rows": {
            "median": float(np.median(found.rows_used)),
            "mean": float(found.rows_used.mean()),
        },
        "gap": {"median": float(np.median(gap)), "largest": float(gap.max())},
        "above 1 %": float((gap > TOLERANCE).mean()),
        "above 5 %": float((gap > 0.05).mean()),
        "withheld": float(found.withheld.mean()),
        "seconds": seconds,
    }
    if truth is not None:
        size = truth.abs().sum(1).clamp(min=0.1)
        error = ((found.values - truth).abs().sum(1) / size).numpy()
        result["error"] = {
            "median": float(np.median(error)),
            "95 %": float(np.quantile(error, 0.95)),
            "largest": float(error.max()),
        }
    return result


def compared(function: Any, x: Tensor, baseline: Tensor, truth: Tensor | None) -> dict[str, Any]:
    """The adaptive path and Captum's steps on the same rows."""
    found = {}
    calls = [("adaptive", "integrated_gradients", 50)]
    calls += [(f"captum {steps}", "captum_integrated_gradients", steps) for steps in STEPS]
    for name, method, steps in calls:
        config = MethodConfig(n_steps=steps, batch_size=2048)
        start = time.perf_counter()
        one = explain_rows(function, x, baseline, method, config)
        found[name] = told(one, time.perf_counter() - start, truth)
        print(name, json.dumps(found[name]), file=sys.stderr)
    return found


def latching(n_subjects: int, seed: int) -> dict[str, Any]:
    """The alarm: methods, and what the grid's own attribution puts on cells nobody measured."""
    generator = torch.Generator().manual_seed(seed)
    model, auroc = trained(generator)
    value, seen, _ = alarms(n_subjects, generator)
    x, source = value.double().flatten(1), sources(seen)

    def function(rows: Tensor, which: Tensor) -> Tensor:
        return model(filled(rows, source[which]))

    found = compared(function, x, torch.zeros_like(x), reference(function, x))
    grid = filled(x, source)
    on_grid = IntegratedGradients(model).attribute(grid, n_steps=50, internal_batch_size=2048)
    size = on_grid.abs().flatten(1)
    unseen = ~seen.flatten(1)
    held = explain_rows(
        function, x, torch.zeros_like(x), "integrated_gradients", MethodConfig(batch_size=2048)
    )
    found["unmeasured share"] = {
        "captum on the filled grid": float(((size * unseen).sum(1) / size.sum(1)).mean()),
        "top cell unmeasured": float(unseen.gather(1, size.argmax(1)[:, None]).double().mean()),
        "through the fill": float((held.values.abs() * unseen).sum()),
    }
    return {"auroc": auroc, "subjects": n_subjects, **found}


def families(n_subjects: int, seed: int, only: list[str], folder: Path) -> dict[str, Any]:
    """Every family, fitted shortly on simulated patients, explained on others."""
    n_train, n_captum = 400, min(n_subjects, 6)  # Captum's 800 steps take hours on all
    cohort = cn.simulate_cohort(n_train + n_subjects, seed)
    train, others = cohort.take(range(n_train)), cohort.take(range(n_train, len(cohort)))
    task, found = cn.Classify("in_hospital_death"), {}
    for name in only:
        out = folder / name
        config = cn.FitConfig(epochs=3)
        run = cn.fit(
            model_from_config({"name": name}),
            train,
            task=task,
            out=out,
            config=config,
            progress=False,
        )
        one: dict[str, Any] = {}
        calls: list[tuple[str, Any, dict[str, Any]]] = [("adaptive", others, {})]
        some = others.take(range(n_captum))
        calls += [
            (f"captum {n}", some, {"method": "captum_integrated_gradients", "n_steps": n})
            for n in (50, 800)
        ]
        for method, part, options in calls:
            start = time.perf_counter()
            gates: Any = cn.explain(run, part, **options).gates
            gap = gates["gap"].to_numpy()
            one[method] = {
                "subjects": len(gates),
                "rows": {
                    "median": float(gates["rows_used"].median()),
                    "mean": float(gates["rows_used"].mean()),
                    "largest": int(gates["rows_used"].max()),
                },
                "gap": {"median": float(np.median(gap)), "largest": float(gap.max())},
                "within 1 %": float((gap <= TOLERANCE).mean()),
                "withheld": int(gates["withheld"].sum()),
                "seconds": time.perf_counter() - start,
            }
        found[name] = one
        print(name, json.dumps(one), file=sys.stderr)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Rows and errors of path attributions.")
    parser.add_argument("what", choices=["latching", "families"])
    parser.add_argument("--subjects", type=int, help="100 alarms, 300 patients by default")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "latching":
        found = latching(options.subjects or 100, options.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = families(options.subjects or 300, options.seed, options.only, Path(folder))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
