"""Where a report comes from: code, command, run, settings and data, as hashes that can be compared.

The block stands on every page and, whole, in `provenance.json`; `check_provenance` says whether a
report was made from a given run and given data, and else in what they differ. It holds no time of
day, no path, and nothing of a subject.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinode.brain import Connectome
from clinode.cohort import Cohort, Several
from clinode.cohort.content import content_hashes, together
from clinode.errors import ArgumentError, CheckpointError, masked_text
from clinode.evaluation import SplitConformal
from clinode.folder import read_json, verify_folder
from clinode.report import versions
from clinode.report.tables import Cell, Table
from clinode.training import Ensemble, Run
from clinode.training.call import flat
from clinode.training.run import plain, schema_digest

FILE = "provenance.json"
FORMAT = 1
MOST_NAMED = 8  # differences
PARTS = {  # of a run, and what each is called where it differs
    "weights": "weights",
    "settings": "settings",
    "schema": "schema of the values",
    "calibration": "calibration",
    "baselines": "baselines",
    "training": "training part",
    "measured": "measures of the fit",
}
NO_COMMAND = "none: written from Python"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a report was made from; plain numbers, words and hexadecimal SHA-256.

    Args:
        kind: "report" or "brain report".
        command: The call of the command line, masked; None where there was none.
        code: As `versions.code` tells it.
        versions: Of Python and of the packages that took part.
        machine: Processor, threads, device.
        runs: Each member's model, seed and version, its settings, and a SHA-256 of each part.
        data: Of what was read ("read") and of the part reported on ("reported"), or of a
            "connectome" and the "linearization": a SHA-256 of each table and of all.
        settings: Of the report itself: method, baseline and so on.
    """

    kind: str
    command: str | None
    code: Mapping[str, str | None]
    versions: Mapping[str, str]
    machine: Mapping[str, str | int]
    runs: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def config(self) -> str:
        """SHA-256 of the settings of the runs and of the report."""
        return digest_of([[run["settings"] for run in self.runs], self.settings])

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return plain({**asdict(self), "format": FORMAT, "config": self.config})

    @property
    def sha256(self) -> str:
        """Of everything; it stands on every page, and ties the page to the file."""
        return digest_of(self.to_dict())

    def table(self) -> Table:
        """The block of a page."""
        told = self.code
        words = f"clinode {told['clinode']}" + (
            f", commit {told['commit']}" if told["commit"] else ""
        )
        rows = [
            ("Command", self.command or NO_COMMAND),
            ("Code", words),
            ("Source files of clinode", told["source"]),
            ("Versions", ", ".join(f"{name} {number}" for name, number in self.versions.items())),
            ("Machine", _machine_words(self.machine)),
        ]
        for run in self.runs:
            seed = f"{run['model']}, seed {run['seed']}, fitted by clinode {run['clinode']}"
            rows += [("Model", seed), ("Its weights", run["weights"])]
        seed = self.settings.get("seed")
        rows += [] if seed is None else [("Seed of draws", str(seed))]
        rows += [("Config: settings of model, fit and report", self.config)]
        for name, held in self.data.items():
            if name == "reported" and held == self.data["read"]:
                continue
            counts = [f"{n:,} {noun}" for noun, n in held.get("counts", {}).items()]
            rows.append((", ".join([_DATA[name], *counts]), held["sha256"]))
        rows.append((f"This block in full, {FILE}", self.sha256))
        return Table(
            "From what this page was made; long numbers are SHA-256, and clinode verify compares "
            "them with a run and with data",
            ["What", "Value"],
            [[name, Cell(str(value), "hash" if _is_digest(value) else "told")]
             for name, value in rows],
        )  # fmt: skip


def of_report(
    run: Run | Ensemble,
    cohort: Cohort,
    whole: Cohort | None,
    settings: Mapping[str, Any],
    command: str | None,
) -> Provenance:
    """Of the pages on a model and a cohort.

    Args:
        run: That was asked.
        cohort: That the pages speak of.
        whole: What it was taken from; None where it is all that was read.
        settings: Of the report.
        command: Masked, or None.
    """
    reported = _of_cohort(cohort)
    return Provenance(
        kind="report",
        command=command,
        code=versions.code(),
        versions=versions.versions(versions.OF_REPORTS),
        machine=versions.machine(run.members[0].device),
        runs=[of_run(member) for member in run.members],
        data={"read": reported if whole is None else _of_cohort(whole), "reported": reported},
        settings=_masked(settings),
    )


def of_study(
    arrays: Mapping[str, torch.Tensor],
    network: Connectome | None,
    run: Run | None,
    settings: Mapping[str, Any],
    command: str | None,
) -> Provenance:
    """Of a steering study.

    Args:
        arrays: The linearization, the equilibrium and the stimulus.
        network: The connectome, where there is one.
        run: Whose latent system was steered; None of a system that was written down.
        settings: Of the study.
        command: Masked, or None.
    """
    data = {} if network is None else {"connectome": _of_connectome(network)}
    found = {name: _of_array(array.numpy()) for name, array in arrays.items()}
    return Provenance(
        kind="brain report",
        command=command,
        code=versions.code(),
        versions=versions.versions(versions.OF_STEERING),
        machine=versions.machine(),
        runs=[] if run is None else [of_run(run)],
        data=data | {"linearization": {"sha256": together(found), "tables": found}},
        settings=_masked(settings),
    )


def of_run(run: Run) -> dict[str, Any]:
    """What decides the answers of a run, each part as a SHA-256."""
    settings = {
        "model": run.model.config(),
        "task": run.task.to_dict(),
        "fit": run.config.to_dict(),
        "seed": run.seed,
    }
    held = run.calibration
    is_conformal = isinstance(held, SplitConformal)
    calibration = _of_arrays(held.to_arrays()) if is_conformal else held and held.to_dict()
    return {
        "model": type(run.model).__name__,
        "seed": run.seed,
        "clinode": run.version,
        "settings": _masked(settings),
        "weights": run.weights_sha256,
        "schema": schema_digest(run.schema),
        "calibration": None if calibration is None else digest_of(calibration),
        "baselines": digest_of(_of_arrays(run.baselines.to_arrays())),
        "training": digest_of([run.fingerprint, run.parts.astype(str).to_dict("list")]),
        "measured": digest_of(run.metrics),
    }


def check_provenance(
    folder: Path | str,
    run: Run | Ensemble | None = None,
    data: Cohort | Connectome | None = None,
) -> dict[str, Any]:
    """Find out whether a report is as it was written, and made from this run and these data.

    Args:
        folder: That `write_report` or `write_brain_report` wrote.
        run: None looks at the data alone.
        data: The cohort that was read, or the part reported on; of a brain report the connectome.
            None looks at the run alone.

    Returns:
        What `provenance.json` says.

    Raises:
        CheckpointError: A file was altered, a page is of another report, or the report was made
            from another run or from other data; every difference is named.
        ArgumentError: The report has no such run, or no such data.
    """
    folder = Path(folder)
    manifest = verify_folder(folder)
    if FILE not in manifest["files"]:
        raise CheckpointError(
            "the folder does not say what it was made from",
            where=folder.name,
            fix="name the folder of a report, written by this version of clinode or a later one",
        )
    told = read_json(folder / FILE)
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CheckpointError("it is not of this version", where=f"{folder.name}/{FILE}")
    _check_pages(folder, manifest["files"], digest_of(told))
    found = [] if run is None else _other_run(told, run)
    found += [] if data is None else _other_data(told, data)
    if found:
        more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise CheckpointError(
            "the report was not made from what was given: " + "; ".join(found[:MOST_NAMED]) + more,
            where=folder.name,
            fix="name the run and the data it was made from, read in the same way",
        )
    return told


def digest_of(value: Any) -> str:
    """SHA-256 of a plain value, as sorted JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _check_pages(folder: Path, files: Mapping[str, Any], digest: str) -> None:
    """Refuse pages that carry the block of another report."""
    for name in files:
        if "/" in name or not name.endswith(".html"):
            continue
        if digest not in (folder / name).read_text(encoding="utf-8"):
            raise CheckpointError(
                f"the page does not carry the provenance that stands in {FILE}",
                where=f"{folder.name}/{name}",
                fix="write the report again",
            )


def _other_run(told: Mapping[str, Any], run: Run | Ensemble) -> list[str]:
    stored = told["runs"]
    if not stored:
        raise ArgumentError("the report was made without a run", fix="leave the run out")
    if len(stored) != len(run.members):
        return [f"run: {len(stored)} members in the report, {len(run.members)} given"]
    found = []
    for number, (there, member) in enumerate(zip(stored, run.members, strict=True)):
        kind = there["settings"]["task"]["kind"]
        if isinstance(member.task, Several) and kind in member.task.kinds:
            member = member.of(kind)
        here = plain(of_run(member))
        where = "run" if len(stored) == 1 else f"run {number}"
        different = [name for name in PARTS if there[name] != here[name]]
        found += [f"{where}: other {PARTS[name]}" for name in different if name != "settings"]
        one, other = flat(there["settings"]), flat(here["settings"])
        found += [
            f"{where}: {key} is {one.get(key)} in the report, {other.get(key)} in the run"
            for key in sorted({*one, *other})
            if one.get(key) != other.get(key)
        ]
    return found


def _other_data(told: Mapping[str, Any], data: Cohort | Connectome) -> list[str]:
    stored = told["data"]
    if isinstance(data, Connectome):
        if "connectome" not in stored:
            raise ArgumentError("the report was made without a connectome", fix="leave it out")
        return _differences(stored["connectome"], _of_connectome(data))
    if "read" not in stored:
        raise ArgumentError("the report was made without a cohort", fix="leave the data out")
    here = _of_cohort(data)
    if here["sha256"] in (stored["read"]["sha256"], stored["reported"]["sha256"]):
        return []
    return _differences(stored["read"], here)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    one, other = there["tables"], here["tables"]
    found = [
        f"data: {n:,} {noun} in the report, {here['counts'][noun]:,} given"
        for noun, n in there["counts"].items()
        if n != here["counts"][noun]
    ]
    if one.get("observations") != other.get("observations"):
        # the other hashes hold this one too, and say nothing more
        return [*found, "data: other observations (the other tables were not compared)"]
    names = [name for name in one | other if one.get(name) != other.get(name)]
    return found + [f"data: other {name}" for name in names]


def _of_cohort(cohort: Cohort) -> dict[str, Any]:
    tables = content_hashes(cohort)
    counts = {"subjects": len(cohort), "observations": cohort.n_observations}
    return {"sha256": together(tables), "tables": tables, "counts": counts}


def _of_connectome(network: Connectome) -> dict[str, Any]:
    tables = {"weights": _of_array(network.weights.numpy()), "labels": digest_of(network.labels)}
    for name in ("centers", "tract_lengths"):
        held = getattr(network, name)
        if held is not None:
            tables[name] = _of_array(held.numpy())
    return {"sha256": together(tables), "tables": tables, "counts": {"regions": network.n_regions}}


def _of_arrays(arrays: Mapping[str, Any]) -> dict[str, str]:
    return {name: _of_array(np.asarray(array)) for name, array in arrays.items()}


def _of_array(array: np.ndarray) -> str:
    whole = np.ascontiguousarray(array)
    kind = f"{whole.dtype.str} {whole.shape}".encode()
    return hashlib.sha256(kind + whole.tobytes()).hexdigest()


def _masked(value: Any) -> Any:
    """Settings as JSON gives them back, texts without what looks like an identifier."""
    if isinstance(value, Mapping):
        return {str(key): _masked(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(held) for held in value]
    return masked_text(value) if isinstance(value, str) and not _is_digest(value) else value


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _machine_words(told: Mapping[str, Any]) -> str:
    n = told["threads"]
    return f"{told['processor']}, {n} thread{'' if n == 1 else 's'}, {told['device']}"


_DATA = {
    "read": "Data read",
    "reported": "Data reported on",
    "connectome": "Connectome",
    "linearization": "Linearization, equilibrium and stimulus",
}
