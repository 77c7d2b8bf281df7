"""`clinode verify`: whether a folder is still what clinode wrote."""

from pathlib import Path
from typing import Annotated

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer


def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run, a report, a cohort.")],
    answer: Answer,
) -> None:
    """Compare every file of a folder with the size and SHA-256 in its manifest."""
    from clinode.cli.answers import count
    from clinode.folder import verify_folder

    manifest = verify_folder(folder)
    result = {
        "folder": folder,
        "kind": manifest["kind"],
        "clinode": manifest["clinode"],
        "files": len(manifest["files"]),
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
    }
    told = f"{called(folder)}: a whole {manifest['kind']} of clinode {manifest['clinode']}, "
    answer.tell(result, [told + count(result["files"], "file") + " as written"])
