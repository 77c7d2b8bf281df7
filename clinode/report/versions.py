"""With what pages were computed: the code, the packages, the machine."""

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from clinode import __version__

OF_REPORTS = (
    "torch", "numpy", "scipy", "pandas", "pyarrow", "duckdb", "scikit-learn", "captum", "jinja2",
)  # fmt: skip
OF_STEERING = ("torch", "numpy", "scipy", "pandas", "control", "matplotlib", "jinja2")


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The version of Python and of each package, in this order; "not installed" where it is not."""
    found = {"Python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def code() -> dict[str, str | None]:
    """Which clinode this is.

    Returns:
        Its version; as `source` the SHA-256 over the names and contents of its files, which tells
        altered code from the released one; as `commit` that of the checkout it lies in, or None.
    """
    home = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(home.rglob("*"), key=lambda one: one.relative_to(home).as_posix()):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.relative_to(home).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return {
        "clinode": __version__,
        "source": digest.hexdigest(),
        "commit": _commit(home.parent / ".git"),
    }


def machine(device: torch.device | None = None) -> dict[str, str | int]:
    """What the last digits depend on beside the code: processor, threads, device."""
    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": "cpu" if device is None else device.type,
    }


def _commit(git: Path) -> str | None:
    """The commit that a checkout stands at, read without git; None where there is no checkout."""
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return head
        if (git / name).is_file():
            return (git / name).read_text(encoding="utf-8").strip()
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
