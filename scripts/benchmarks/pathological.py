"""How long solvers take over fields that break solvers: at most two seconds each is the goal.

    python scripts/benchmarks/pathological.py [--json]

The fields are those of tests/dynamics/test_pathological.py; every method meets each with the
default budgets, alone. Counts solutions, statuses by word, and solutions that are not finite.
"""

import argparse
import collections
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from clinode.dynamics import METHODS, simulate

FIELDS = Path(__file__).parents[2] / "tests" / "dynamics" / "test_pathological.py"


def loaded(path: Path) -> ModuleType:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def met(fields: ModuleType, method: str) -> list[dict[str, Any]]:
    """Each field by one method, with its status and seconds."""
    how = {"step": 0.01} if method in fields.FIXED_STEP else {}
    rows = []
    for name, (rate, start, _) in fields.FIELDS.items():
        since = time.perf_counter()
        found = simulate(
            fields.Bad(rate), [start], [0.0, 0.25, 1.0], method=method, keep_failed=True, **how
        )
        rows.append(
            {
                "field": name,
                "method": method,
                "status": str(found.status),
                "seconds": time.perf_counter() - since,
                "evaluations": int(found.n_evaluations),
                "wrong": bool(found.status == "ok" and not found.states.isfinite().all()),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print every measurement as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fields = loaded(FIELDS)
    methods = [method for method in METHODS if method != "milstein"]
    rows = [row for method in methods for row in met(fields, method)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        slowest = max(mine, key=lambda row: row["seconds"])
        words = collections.Counter(row["status"] for row in mine)
        print(
            f"{method:20s} slowest {slowest['seconds']:5.2f} s ({slowest['field']}); "
            + ", ".join(f"{count} {word}" for word, count in words.most_common())
        )
    print(f"NaN reported as success: {sum(row['wrong'] for row in rows)} of {len(rows)}")


if __name__ == "__main__":
    main()
