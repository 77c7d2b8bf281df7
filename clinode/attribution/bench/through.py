"""The irregular sets through the whole path: a family of clinode's, `fit`, then `explain`.

The other runs of these sets explain a small network on a filled grid; here the records stay a
cohort of events, the model is one that a user would fit, and what is scored is all of it together:
a cause that the model has not learned cannot be found in it.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from clinode.attribution.attributions import Attributions
from clinode.attribution.bench.irregular import OUTCOME, VARIABLES, IrregularRecords
from clinode.attribution.bench.row import BenchRow
from clinode.attribution.bench.scores import score_map, unmeasured_share
from clinode.attribution.checks.asked import Asked
from clinode.attribution.methods import COALITIONS
from clinode.cohort import Classify, Cohort, split
from clinode.errors import ArgumentError
from clinode.sequence import MODELS
from clinode.training import FitConfig, Run, fit

TUNE = 0.15  # of the records that are fitted to


class FittedFamily:
    """A family fitted to a draw of an irregular set, and those records whose causes are looked for.

    Args:
        name: Of the set.
        family: A name of `clinode.sequence.MODELS`.
        records: All of the draw.
        n_train: The first so many train and tune; the others are held out.
        n_explained: Of those held out in whom something matters, so many are explained.
        config: How it is fitted; None takes what `fit` takes.
        seed: Of the fit.

    Raises:
        ArgumentError: There is no such family.
    """

    def __init__(
        self,
        name: str,
        family: str,
        records: IrregularRecords,
        *,
        n_train: int,
        n_explained: int,
        config: FitConfig | None = None,
        seed: int = 0,
    ):
        check_family(family)
        self.name, self.family = name, family
        cohort = records.cohort()
        train, tune = split(cohort.select(cohort.subjects[:n_train]), (1 - TUNE, TUNE))
        model: Any = MODELS[family]
        with tempfile.TemporaryDirectory() as folder:
            self.run: Run = fit(
                model(),
                train,
                tune,
                task=Classify(OUTCOME),
                out=Path(folder) / "run",
                config=config,
                seed=seed,
                progress=False,
            )
        held_out = cohort.select(cohort.subjects[n_train:])
        label = records.label[n_train:]
        told = self.run.predict(held_out).set_index("subject_id")["probability"]
        told = told.loc[held_out.subjects].to_numpy()
        self.facts = {
            "auroc of the model": float(roc_auc_score(label, told)),
            "auroc of the planted logit": float(roc_auc_score(label, records.logit[n_train:])),
        }
        some = n_train + np.flatnonzero(records.truth[n_train:].any(axis=(1, 2)))[:n_explained]
        self.records = records.take(some)
        self.cohort: Cohort = cohort.select(cohort.subjects[some])

    def row(self, method: str, *, fold: int = 0, seed: int = 0) -> BenchRow:
        """Explain by one method and score the maps.

        What leaves events out compares with the record without them, everything else with the
        training mean. A map that is withheld ranks last.
        """
        baseline = "delete" if method in COALITIONS else "cohort_mean"
        told = {"set": self.name, "method": method, "fold": fold, "facts": self.facts,
                "through": self.family}  # fmt: skip
        started = time.perf_counter()
        try:
            found = Asked(method=method, baseline=baseline, seed=seed).of(self.run, self.cohort)
        except ArgumentError as refused:
            return BenchRow.refused(**told, why=str(refused))
        seconds = (time.perf_counter() - started) / len(self.cohort)
        cells = on_cells(found, self.cohort, self.records)
        gates = found.gates
        return BenchRow(
            **told,
            scores=score_map(cells, self.records.truth, self.records.measured),
            gap=float(np.median(gates["gap"])),
            withheld=float(np.mean(gates["withheld"])),
            unmeasured=unmeasured_share(cells, self.records.measured),
            rows=float(np.median(gates["rows_used"])),
            seconds=seconds,
            off=None,
        )


def check_family(family: str) -> None:
    """Refuse a family that there is not.

    Raises:
        ArgumentError: There is no such family.
    """
    if family not in MODELS:
        raise ArgumentError(
            f"there is no model {family!r}", fix=f"choose among {', '.join(MODELS)}"
        )


def on_cells(
    found: Attributions, cohort: Cohort, records: IrregularRecords
) -> Float[np.ndarray, "subject hour variable"]:
    """Attributions of events as those of the hours they lie in; NaN where a map is withheld."""
    cells = np.zeros(records.value.shape)
    events = found.to_pandas().query("kind == 'observation'")
    place = pd.Index(cohort.subjects)
    subject = place.get_indexer(pd.Index(events["subject_id"]))
    variable = pd.Index(VARIABLES).get_indexer(pd.Index(events["variable"].astype(str)))
    hour = np.floor(np.asarray(events["time"], dtype=np.float64)).astype(np.int64)
    np.add.at(cells, (subject, hour, variable), np.asarray(events["attribution"]))
    is_withheld = found.gates["withheld"].to_numpy(dtype=bool)
    told = pd.Index(found.gates["subject_id"])
    cells[place.get_indexer(told[is_withheld])] = np.nan
    return cells
