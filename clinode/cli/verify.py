"""`clinode verify`: whether a folder is as clinode wrote it, and from what a report was made."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.explain import load
from clinode.cli.options import Answer, Data, Reading
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.brain import Connectome
    from clinode.cohort import Cohort


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run, a report, a cohort.")],
    answer: Answer,
    how: Reading,
    run: Annotated[
        Path | None,
        typer.Option(help="Run or ensemble that a report is to be made from."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data that it is to be made from; of a brain report the connectome."),
    ] = None,
) -> None:
    """Compare every file of a folder with the size and SHA-256 in its manifest.

    Of a report also every page with the provenance beside it, and with --run and --data whether it
    was made from these: what differs is named, and the exit code is 3.
    """
    from clinode.cli.answers import count
    from clinode.folder import verify_folder

    if data is None and (how.told() or how.task_file is not None):
        raise ArgumentError("how data are read was said, and not which", fix="give --data DATA")
    manifest = verify_folder(folder)
    result: dict[str, Any] = {
        "folder": folder,
        "kind": manifest["kind"],
        "clinode": manifest["clinode"],
        "files": len(manifest["files"]),
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
    }
    told = f"{called(folder)}: a whole {manifest['kind']} of clinode {manifest['clinode']}, "
    lines = [told + count(result["files"], "file") + " as written"]
    if run is not None or data is not None or "provenance.json" in manifest["files"]:
        from clinode.report import check_provenance

        fitted = None if run is None else load(run, device="cpu")
        found = check_provenance(folder, fitted, _data(manifest["kind"], data, how))
        compared = [name for name, given in (("run", run), ("data", data)) if given is not None]
        result |= {"compared": compared, "provenance": found}
        if compared:
            lines.append(f"Made from this {' and from these '.join(compared)}")
    answer.tell(result, lines)


def _data(kind: str, data: Path | None, how: Reading) -> "Cohort | Connectome | None":
    """What a report of this kind was made from."""
    import clinode
    from clinode.report.brain import KIND

    if data is None:
        return None
    if kind == KIND:
        return clinode.read_connectome(data)
    return Data(data=data, **vars(how)).read()
