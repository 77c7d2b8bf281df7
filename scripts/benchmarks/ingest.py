"""Peak memory and time of reading long tables, each in a process of its own.

    python scripts/benchmarks/ingest.py 1e6 1e7

Prints a line a size and format, and how memory grows an event.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVENTS_A_SUBJECT = 200
N_VARIABLES = 40


def write_table(path: Path, n_events: int) -> None:
    """Write made-up events, shuffled over subjects as a table of laboratory results is."""
    import duckdb

    form = "FORMAT csv, HEADER" if path.suffix == ".csv" else "FORMAT parquet, COMPRESSION zstd"
    n_subjects = max(1, n_events // EVENTS_A_SUBJECT)
    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(path.parent)}) as c:
        c.execute(f"""
            COPY (
                SELECT 100000 + hash(i) % {n_subjects} AS stay_id,
                    round((hash(i + 1) % 2880) / 60, 4) AS time,
                    'item ' || (hash(i + 2) % {N_VARIABLES}) AS variable,
                    round((hash(i + 3) % 100000) / 100, 2) AS value
                FROM range({n_events}) r(i)
            ) TO '{path}' ({form})
        """)


def measure(path: Path) -> None:
    """Read one table and print what it took."""
    import resource

    from clinode.cohort import read_cohort

    start = time.perf_counter()
    cohort = read_cohort(path)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(
        json.dumps(
            {
                "seconds": round(seconds, 1),
                "peak_bytes": peak,
                "n_observations": cohort.n_observations,
                "balanced": cohort.ledger.balanced,
            }
        )
    )


def run(arguments: list[str]) -> dict:
    """Run this script in a process of its own and read its last line."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def main() -> None:
    """Measure every size and format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1e6, 1e7], help="events")
    parser.add_argument("--format", choices=["csv", "parquet"], action="append")
    parser.add_argument("--folder", default=None, help="where the tables are made")
    parser.add_argument("--write", nargs=2, metavar=("FILE", "EVENTS"), help=argparse.SUPPRESS)
    parser.add_argument("--read", metavar="FILE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        return write_table(Path(asked.write[0]), int(float(asked.write[1])))
    if asked.read:
        return measure(Path(asked.read))
    for form in asked.format or ["csv", "parquet"]:
        results = []
        for size in sorted(asked.sizes):
            with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
                path = Path(folder) / f"events.{form}"
                run(["--write", str(path), str(size)])
                results.append((size, run(["--read", str(path)])))
            size, result = results[-1]
            print(
                f"{form:8s} {size:11,.0f} events  {result['peak_bytes'] / 1e9:5.2f} GB  "
                f"{result['seconds']:6.1f} s  {result['n_observations']:,} kept  "
                f"{'balanced' if result['balanced'] else 'NOT BALANCED'}",
                flush=True,
            )
        for (size, result), (last_size, last) in zip(results[1:], results[:-1], strict=True):
            growth = (result["peak_bytes"] - last["peak_bytes"]) / (size - last_size)
            print(f"{form:8s} {last_size:,.0f} to {size:,.0f}: {growth:.1f} bytes an event")


if __name__ == "__main__":
    main()
