"""The parts of a fit: who is trained on, who selects, and who gives scales and baselines."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from clinode.cohort import Cohort, PackedRecords, Preprocessor, Task
from clinode.cohort.fingerprint import fingerprint
from clinode.cohort.record_blocks import pack
from clinode.cohort.split import some_subjects
from clinode.errors import SchemaError
from clinode.training.config import FitConfig
from clinode.training.drift import seen_until
from clinode.training.run import Run
from clinode.training.start import scaled_like
from clinode.training.tasks import work_of


@dataclass(frozen=True)
class FitParts:
    """The cohorts of a fit and what is read of them."""

    train: Cohort
    tune: Cohort | None
    aside: Cohort | None  # who of the tuning part selects nothing
    task: Task
    schema: Preprocessor
    few: Cohort  # of the training part, whom scales, baselines and state ranges are taken from
    few_records: PackedRecords
    few_shown: PackedRecords
    shown: PackedRecords  # what the network learns from
    tune_records: PackedRecords | None
    positions: np.ndarray  # of `shown`, with something to be trained on

    @classmethod
    def read(
        cls, train: Cohort, tune: Cohort | None, task: Task, config: FitConfig, source: Run | None
    ) -> "FitParts":
        """Fit the schema and pack the records.

        Args:
            train: The training part.
            tune: The tuning part.
            task: What to predict.
            config: How many give the statistics, and how many times of a record are trained on.
            source: A run whose scales are kept.

        Raises:
            ArgumentError: The task knows one prediction time only.
            SchemaError: There is nothing to learn from, or to select by.
        """
        few = some_subjects(train, config.statistics_subjects)
        schema = replace(Preprocessor.fit(few, task), n_subjects=len(train))
        if source is not None:
            schema = scaled_like(schema, source)
        records = pack(train, schema, task)
        work = work_of(task)
        work.check_targets("training", train, records)
        tune_records = aside = None
        if tune is not None:
            selecting, aside = work.set_aside(tune)
            tune_records = pack(selecting, schema, task)
            work.check_targets("tuning", selecting, tune_records)
        shown = work.trained_on(records, config.prediction_times)
        few_records, few_shown = records, shown
        if few is not train:
            few_records = pack(few, schema, task)
            work.check_targets("training", few, few_records)
            few_shown = work.trained_on(few_records, config.prediction_times)
        return cls(
            train=train,
            tune=tune,
            aside=aside,
            task=task,
            schema=schema,
            few=few,
            few_records=few_records,
            few_shown=few_shown,
            shown=shown,
            tune_records=tune_records,
            positions=shown.trainable,
        )

    @property
    def reported(self) -> tuple[str, Cohort]:
        """The part that metrics and predictions describe."""
        return ("train", self.few) if self.tune is None else ("tune", self.tune)

    @property
    def seen(self) -> dict[str, Any]:
        """The fingerprint of what the model reads of the training part, or of those measured on."""
        return fingerprint(self.few, seen_until(self.few, self.schema, self.task))

    @property
    def table(self) -> pd.DataFrame:
        """subject_id and split ("train", "tune", "calibrate") of everybody: `split.parquet`."""
        named = [("train", self.train), ("tune", self.tune)]
        table = pd.concat(
            [
                pd.DataFrame({"subject_id": cohort.subjects, "split": name})
                for name, cohort in named
                if cohort is not None
            ],
            ignore_index=True,
        )
        if self.aside is not None:
            is_aside = table["subject_id"].isin(self.aside.subjects.tolist())
            table["split"] = table["split"].mask(is_aside, "calibrate")
        return table


def check_parts(train: Cohort, tune: Cohort | None) -> None:
    """Refuse parts that are empty or share somebody.

    Raises:
        SchemaError: Says which, and how many are shared.
    """
    for name, cohort in (("training", train), ("tuning", tune)):
        if cohort is not None and len(cohort) == 0:
            raise SchemaError(f"the {name} part has no subject", fix="check how it was selected")
    if tune is None:
        return
    shared = np.isin(train.subjects, tune.subjects)
    if shared.any():
        raise SchemaError(
            f"{int(shared.sum())} subjects are in the training and in the tuning part",
            fix="split by subject, for instance with clinode.split",
        )
    shared = np.isin(train.groups, tune.groups)
    if shared.any():
        raise SchemaError(
            f"{int(shared.sum())} training subjects belong to a person of the tuning part",
            fix="split by person, for instance with clinode.split",
        )
