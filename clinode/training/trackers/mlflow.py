"""Fits in MLflow: a store in a local folder, never a server.

The package asks its makers' server for instructions when it is imported, unless it is told not to
through an environment variable; that variable stands only while it is imported here. The store in
plain files has to be allowed in the same way.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.training.trackers.tracker import Status

IDENTITY = "clinode.identity"
_SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_NOT_IN_NAMES = re.compile(r"[^\w\-./: ]", re.ASCII)
_LONGEST_VALUE = 500  # characters of a parameter that every version takes


class MLflow:
    """Writes what `mlflow ui --backend-store-uri FOLDER` shows.

    A fit that goes on continues its entry; what it tells again of a step stands there twice, with
    one value. Of who ran it, from where and with which file, nothing is written.

    Args:
        folder: Of the store.
        experiment: Name under which the runs stand together.

    Raises:
        ArgumentError: The package mlflow is not installed, or the folder is an address.
    """

    def __init__(self, folder: Path | str, experiment: str = "clinode"):
        if find_spec("mlflow") is None:
            raise ArgumentError(
                "MLflow cannot follow a fit: the package mlflow is not installed",
                fix="pip install 'clinode[track]', or leave this tracker out",
            )
        if "://" in str(folder):
            raise ArgumentError(
                "MLflow follows a fit into a local folder, and an address was given",
                fix="name a folder; to send results elsewhere, write a tracker of your own "
                "(clinode.training.Tracker)",
            )
        self.folder = Path(folder)
        self.experiment = experiment
        self.shown_by = f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {self.folder}"
        self._client: Any = None
        self._run = ""

    def start(self, name: str, settings: Mapping[str, Any], *, identity: str, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._client = _local_client(self.folder.resolve().as_uri())
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = (
            self._client.create_experiment(self.experiment)
            if found is None
            else found.experiment_id
        )
        self._run = (self._begun(experiment, identity) if step else None) or self._new(
            experiment, name, settings, identity
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]  # extra `track`

        now = int(time.time() * 1000)
        told = [
            Metric(_NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()
        ]
        self._client.log_batch(self._run, metrics=told)

    def finish(self, status: "Status") -> None:
        self._client.set_terminated(self._run, status=_STATUS[status])

    def _begun(self, experiment: str, identity: str) -> str | None:
        """The entry of the fit that goes on; None where it was never tracked, or is finished."""
        of_this_fit = f"tags.`{IDENTITY}` = '{identity}' and attributes.status != 'FINISHED'"
        found = self._client.search_runs([experiment], of_this_fit, max_results=1)
        if not found:
            return None
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id

    def _new(self, experiment: str, name: str, settings: Mapping[str, Any], identity: str) -> str:
        run = self._client.create_run(experiment, run_name=name, tags={IDENTITY: identity})
        for key, value in settings.items():
            told = str(value)[:_LONGEST_VALUE]
            self._client.log_param(run.info.run_id, _NOT_IN_NAMES.sub("_", key), told)
        return run.info.run_id


def _local_client(address: str) -> Any:
    with _environment(_SILENT):
        from mlflow.telemetry import set_telemetry_client  # pyright: ignore[reportMissingImports]  # extra `track`
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]  # extra `track`

        set_telemetry_client()  # off, also where mlflow was imported before
        return MlflowClient(tracking_uri=address)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
