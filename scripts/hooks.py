"""What must not enter the repository: large files, private keys, data, notebook output.

    python scripts/hooks.py large|keys|data|notebooks [FILE ...]     # before a commit
    python scripts/hooks.py all                                      # every tracked file

`notebooks` strips the output of the files it is given; `all` changes nothing. Standard library
only.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 500_000
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE " + rb"KEY-----")
DATA_SUFFIXES = {
    *(".csv", ".tsv", ".parquet", ".feather", ".xls", ".xlsx", ".ods", ".sav", ".dta", ".xpt"),
    *(".npy", ".npz", ".mat", ".h5", ".hdf5", ".edf", ".nii", ".dcm", ".db", ".sqlite", ".duckdb"),
    *(".gz", ".zip", ".zst", ".tar", ".pkl", ".pickle", ".pt", ".pth", ".joblib", ".safetensors"),
}


def large(path: Path) -> str | None:
    """Complaint about a file that is too large."""
    size = path.stat().st_size
    return f"{size:,} bytes, at most {LARGEST_BYTES:,}" if size > LARGEST_BYTES else None


def keys(path: Path) -> str | None:
    """Complaint about a private key."""
    return "holds a private key" if PRIVATE_KEY.search(path.read_bytes()) else None


def data(path: Path) -> str | None:
    """Complaint about a data file, other than a table of constants that the package ships.

    Tests and notebooks make what they need by code.
    """
    shipped = path.resolve().is_relative_to(ROOT / "clinode")
    return "is a data file" if path.suffix.lower() in DATA_SUFFIXES and not shipped else None


def notebooks(path: Path) -> str | None:
    """Complaint about a notebook that is stored with its output."""
    if path.suffix != ".ipynb":
        return None
    text = path.read_text(encoding="utf-8")
    return "has output; run this script's `notebooks` on it" if stripped(text) != text else None


def stripped(text: str) -> str:
    """A notebook without output, run counts and the marks of who ran it."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    notebook["metadata"] = {"language_info": {"name": "python"}}
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


CHECKS = {"large": large, "keys": keys, "data": data, "notebooks": notebooks}


def main(arguments: list[str]) -> int:
    """Check files, print complaints, and return how many there are, at most 1."""
    if not arguments or arguments[0] not in {"all", *CHECKS}:
        print(__doc__)
        return 2
    name, *files = arguments
    paths = [Path(file) for file in files]
    if name == "all":
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
        )
        if listed.returncode != 0:
            print("not a git checkout: nothing to look at")
            return 0
        paths = [ROOT / file for file in listed.stdout.decode().split("\0") if file]
    if name == "notebooks":
        for path in paths:
            if notebooks(path):
                text = stripped(path.read_text(encoding="utf-8"))
                path.write_text(text, encoding="utf-8", newline="\n")
                print(f"{path}: output stripped")
        return 0
    checks = CHECKS.values() if name == "all" else [CHECKS[name]]
    present = [path for path in paths if path.is_file()]
    complaints = [f"{p}: {words}" for p in present for check in checks if (words := check(p))]
    print("\n".join(complaints) or f"{len(present)} files looked at, nothing found")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
