"""Many simulated subjects, written as MEDS shards, read back, and trained on for one epoch.

    python scripts/benchmarks/million.py [--subjects 1000000] [--shard 20000] [--folder DIR]
        [--model gru-gap] [--batch 256]

Each stage is a process of its own; its peak memory (resident, with what is mapped from files) and
time are printed. Writing simulates one shard after the other. Training reads the MEDS folder as
anybody would and calls `fit` for one epoch: records of so many observations are packed in blocks of
subjects on the disk, and scales, baselines and the reported figures are those of 50,000 subjects.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUTCOME = "in_hospital_death"


def write(n_subjects: int, a_shard: int, folder: Path) -> dict:
    """Simulate and write the shards, and put the MEDS folder together."""
    from clinode.cohort import Ledger
    from clinode.cohort.meds_layout import FACTS
    from clinode.cohort.meds_write import KIND, counted, gather, write_shard
    from clinode.folder import read_json, write_folder
    from clinode.physiology import simulate_cohort

    parts = []
    for first in range(1, n_subjects + 1, a_shard):
        part = folder / "parts" / str(len(parts) + 1)
        parts.append(part)
        if (part / "facts.json").is_file():  # of an earlier call that was stopped
            continue
        part.mkdir(parents=True, exist_ok=True)
        cohort = simulate_cohort(min(a_shard, n_subjects + 1 - first), 0, first=first)
        write_shard(cohort, part, counted(cohort))
        print(f"shard {len(parts)}: peak {peak() / 1e9:.2f} GB", file=sys.stderr, flush=True)
    write_folder(folder / "meds", lambda draft: gather(parts, draft, name="simulated"), kind=KIND)
    shutil.rmtree(folder / "parts")
    ledger = Ledger.from_dict(read_json(folder / "meds" / FACTS)["ledger"])
    size = sum(path.stat().st_size for path in (folder / "meds").rglob("*") if path.is_file())
    return {
        "n_observations": ledger.rows("observations", "kept"),
        "bytes_on_disk": size,
        "shards": len(parts),
    }


def train(name: str, batch: int, folder: Path) -> dict:
    """Read the MEDS folder and fit one epoch."""
    import clinode as cn
    from clinode.sequence import MODELS

    start = time.perf_counter()
    cohort = cn.read_cohort(folder / "meds")
    read, read_peak = round(time.perf_counter() - start, 1), peak()
    print(f"read: {read:.0f} s, peak {read_peak / 1e9:.2f} GB", file=sys.stderr, flush=True)
    run = cn.fit(
        MODELS[name](),
        cohort,
        task=cn.Classify(OUTCOME),
        out=folder / "run",
        config=cn.FitConfig(epochs=1, batch_size=batch),
    )
    return {
        "n_subjects": len(cohort),
        "n_observations": cohort.n_observations,
        "balanced": cohort.ledger.balanced,
        "read_seconds": read,
        "read_peak": read_peak,
        "steps": run.metrics["steps"],
        "loss": run.metrics["curve"][-1]["train_loss"],
        "apparent_auroc": run.metrics["evaluation"]["auroc"]["value"],
    }


def peak() -> int:
    """Bytes of the largest resident size of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def stage(name: str, given: argparse.Namespace, folder: Path) -> dict:
    """Run a stage in a process of its own."""
    words = [sys.executable, __file__, "--stage", name, "--folder", str(folder)]
    for option in ("subjects", "shard", "model", "batch"):
        words += [f"--{option}", str(getattr(given, option))]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run both stages and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=20_000, help="subjects a shard")
    parser.add_argument("--folder", type=Path, default=None, help="where the data are made")
    parser.add_argument("--model", default="gru-gap")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--stage", choices=["write", "train"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    start = time.perf_counter()
    if given.stage:
        if given.stage == "write":
            found = write(given.subjects, given.shard, given.folder)
        else:
            found = train(given.model, given.batch, given.folder)
        found |= {"seconds": round(time.perf_counter() - start, 1), "peak_bytes": peak()}
        return print(json.dumps(found))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        for one in ("write", "train"):
            found = stage(one, given, Path(name))
            print(
                f"{one}: {given.subjects:,} subjects, {found['n_observations']:,} observations, "
                f"peak {found['peak_bytes'] / 1e9:.2f} GB, {found['seconds']:.0f} s"
            )
            print(f"  {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
