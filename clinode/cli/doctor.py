"""`clinode doctor`: whether this machine can do the work, and what to do where it cannot."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from clinode.cli.options import Answer
from clinode.errors import ResourceError

LEAST_DISK_GB = 2.0
LEAST_MEMORY_GB = 4.0


@dataclass(frozen=True)
class Finding:
    """One line of the doctor; its status is "ok", "warn" or "fail"."""

    name: str
    status: str
    found: str
    fix: str = ""


def doctor(answer: Answer) -> None:
    """Look at packages, threads, memory, disk, numerics and the browser for tests."""
    from clinode.cli.answers import table

    findings = [check() for check in CHECKS]
    failed = sum(finding.status == "fail" for finding in findings)
    rows = [(one.status, one.name, one.found, one.fix) for one in findings]
    result = {"findings": [asdict(finding) for finding in findings], "failed": failed}
    answer.tell(result, table(["", "what", "found", "fix"], rows))
    if failed:
        raise typer.Exit(ResourceError.exit_code)


def _packages() -> Finding:
    """Every package that clinode needs, at least in the version of pyproject.toml."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wrong: list[str] = []
    wanted = [Requirement(text) for text in requires("clinode") or []]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, needs {requirement.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), "pip install --upgrade clinode")
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding("packages", "ok", f"{len(needed)} as needed, on Python {python}")


def _threads() -> Finding:
    import os

    import torch

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    found = f"{threads} of torch on {cores} cores"
    if threads > cores:
        return Finding("threads", "warn", found, f"set OMP_NUM_THREADS={cores}")
    return Finding("threads", "ok", found)


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("device", "ok", "CPU (no CUDA; nothing needs it)")
    name = torch.cuda.get_device_name()
    total = torch.arange(4.0, device="cuda").sum().item()
    if total != 6.0:
        return Finding("device", "fail", f"{name} adds 0+1+2+3 to {total}", "pass --device cpu")
    return Finding("device", "ok", f"CUDA: {name}")


def _numerics() -> Finding:
    """dx/dt = -x from 1 over one time unit, in float64: e^-1."""
    import math

    import torch
    from torchdiffeq import odeint

    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    start = torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        path: Any = odeint(lambda t, x: -x, start, times, rtol=1e-8, atol=1e-10)
    error = abs(path[-1].item() - math.exp(-1))
    found = f"e^-1 by an ODE solve, off by {error:.0e}"
    if error < 1e-7:
        return Finding("numerics", "ok", found)
    return Finding("numerics", "fail", found, "reinstall torch and torchdiffeq")


def _control() -> Finding:
    """The Gramian of one leaky state, dx/dt = -x + u: 1/2."""
    import control

    gramian: Any = control.gram(control.ss([[-1.0]], [[1.0]], [[1.0]], [[0.0]]), "c")
    found = float(gramian[0, 0])
    if abs(found - 0.5) < 1e-12:
        return Finding("control", "ok", "python-control with slycot: Gramian of a leaky state 0.5")
    return Finding("control", "fail", f"Gramian {found} instead of 0.5", "reinstall slycot")


def _memory() -> Finding:
    import os

    if not hasattr(os, "sysconf"):
        return Finding("memory", "ok", "not told by this system")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found = f"{gigabytes:.1f} GB"
    if gigabytes < LEAST_MEMORY_GB:
        return Finding("memory", "warn", found, "close other programs before a large cohort")
    return Finding("memory", "ok", found)


def _disk() -> Finding:
    import shutil

    gigabytes = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{gigabytes:.1f} GB free here"
    if gigabytes < LEAST_DISK_GB:
        return Finding("disk", "warn", found, "free some space or work elsewhere")
    return Finding("disk", "ok", found)


def _writing() -> Finding:
    from clinode.errors import ClinodeError
    from clinode.folder import check_place

    try:
        check_place(Path.cwd() / "clinode-doctor")
    except ClinodeError as error:
        return Finding("writing", "warn", error.problem, "work in a folder of your own")
    return Finding("writing", "ok", "allowed in this folder")


def _encoding() -> Finding:
    found = (sys.stdout.encoding or "none").lower()
    if found.replace("-", "") != "utf8":
        return Finding("text", "warn", found, "set PYTHONUTF8=1, or µ and ± are spelled out")
    return Finding("text", "ok", found)


def _browser() -> Finding:
    import shutil

    if shutil.which("chromium") is None:
        return Finding("browser", "ok", "no chromium; only tests of the report pages use it")
    return Finding("browser", "ok", "chromium, for tests of the report pages")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _packages,
    _threads,
    _device,
    _numerics,
    _control,
    _memory,
    _disk,
    _writing,
    _encoding,
    _browser,
)
