"""What a map of any family must satisfy before it is shown. Families are found by themselves."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from clinode.attribution import explain
from clinode.cohort import Cohort, PackedRecords, Preprocessor
from clinode.sequence import MODELS, model_from_config

SUBJECTS = [1, 6]  # of `cohort`; the first lacks a static
FACTOR, MOVED = 18.0, "HCT"
QUICK = ("linear-latent-ode", "gru-d")  # the rest is told by the slow tier
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(MODELS)
]


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request, run, tables):
    """The run with a small model of the family, every parameter of which matters, and its maps."""
    sizes = {"latent": 4, "hidden": 6, "statistics_hidden": 6, "head_hidden": 6, "static_code": 3}
    settings = model_from_config({"name": request.param}).config()
    taken = {name: size for name, size in sizes.items() if name in settings}
    generator = torch.Generator().manual_seed(7)
    configured = model_from_config({"name": request.param, **taken})
    model = configured.build(run.schema, run.task, generator)
    cohort = Cohort.from_tables(**tables)
    model.prepare(PackedRecords.build(cohort, run.schema, run.task))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    own = replace(run, model=model)
    return own, cohort, explain(own, cohort.take(SUBJECTS))


def test_nothing_unmeasured_has_a_row_and_what_is_shown_is_complete(fitted, tables):
    _, cohort, found = fitted
    told = found.to_pandas()
    measured = tables["observations"]
    known = measured[measured["time"] <= 40.0].set_index(["subject_id", "time", "variable"]).index
    given = tables["inputs"][tables["inputs"]["start"] <= 40.0]
    begun = given.set_index(["subject_id", "start", "variable"]).index
    statics = tables["statics"].melt("subject_id").dropna()
    has = statics.set_index(["subject_id", "variable"]).index
    keys = told.assign(variable=told["variable"].astype(str))
    for kind, columns, index in (
        ("observation", ["subject_id", "time", "variable"], known),
        ("input", ["subject_id", "time", "variable"], begun),
        ("static", ["subject_id", "variable"], has),
    ):
        own = pd.MultiIndex.from_frame(keys.loc[keys["kind"] == kind, columns])
        shown = index[index.get_level_values(0).isin(cohort.subjects[SUBJECTS])]
        assert sorted(own) == sorted(shown)  # a row each, and none that nobody measured
    gates = found.gates.set_index("subject_id")
    change = gates["output"] - gates["base"]
    total = told.groupby("subject_id")["attribution"].sum().reindex(gates.index)
    gap = (total - change).abs() / np.maximum(change.abs(), 0.1)
    assert ((gap <= 0.01) | gates["withheld"]).all()
    np.testing.assert_allclose(gap[~gates["withheld"]], gates["gap"][~gates["withheld"]], atol=1e-9)
    assert not gates["withheld"].any()


def test_a_map_depends_neither_on_mates_nor_order_nor_padding_nor_the_unit_of_a_variable(
    fitted, tables
):
    run, cohort, found = fitted
    # ids turn the order round, the longest record pads the others, batches end elsewhere
    position = run.schema.variables.index(MOVED)
    assert run.schema.transform[position] == "identity"
    schema = run.schema.to_dict()
    for field in ("low", "high", "mean", "center", "scale"):
        schema["variables"][position][field] *= FACTOR
    names = tuple("other unit" if name == MOVED else name for name in run.schema.variables)
    scaled = replace(Preprocessor.from_dict(schema), variables=names)
    turned = {
        name: table.assign(subject_id=5000 - table["subject_id"]) for name, table in tables.items()
    }
    observations = turned["observations"]
    is_it = observations["variable"] == MOVED
    observations["value"] *= np.where(is_it, FACTOR, 1.0)
    observations["variable"] = observations["variable"].replace(MOVED, "other unit")
    longest = int(observations["subject_id"].value_counts().index[0])
    mates = {*(5000 - cohort.subjects[SUBJECTS]).tolist(), longest}
    assert len(mates) == len(SUBJECTS) + 1
    other = Cohort.from_tables(**turned).select(sorted(mates))
    told = explain(replace(run, schema=scaled), other, batch_size=50).to_pandas()
    assert (told["variable"] == "other unit").any()
    renamed = told["variable"].astype(str).replace("other unit", MOVED)
    told = told.assign(subject_id=5000 - told["subject_id"], variable=renamed)
    _same_maps(found.to_pandas(), told, atol=1e-6)


def _same_maps(first: pd.DataFrame, second: pd.DataFrame, atol: float) -> None:
    """Every row of the first is in the second, with the same attribution."""
    keys = ["subject_id", "kind", "variable", "time"]
    tables = [
        table.assign(variable=table["variable"].astype(str))[[*keys, "attribution"]]
        for table in (first, second)
    ]
    merged = tables[0].merge(tables[1], on=keys, how="left", suffixes=("", "_other"))
    assert len(merged) == len(first)
    assert merged["attribution"].abs().sum() > 0
    np.testing.assert_allclose(
        merged["attribution_other"], merged["attribution"], rtol=0, atol=atol
    )
