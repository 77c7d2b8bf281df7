"""A report says from what it was made, and finds out whether something else stands beside it."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from markupsafe import escape

import clinode as cn
from clinode.brain import WilsonCowanNetwork, simulate_connectome
from clinode.cohort import Cohort
from clinode.control import steer
from clinode.dynamics import find_equilibria
from clinode.errors import ArgumentError, CheckpointError
from clinode.evaluation import Recalibration
from clinode.folder import write_folder
from clinode.report import check_provenance, write_brain_report
from clinode.report.versions import code

COMMAND = "clinode report death stays --out report"


@pytest.fixture(scope="module")
def few(cohort):
    return cohort.take(range(40))


@pytest.fixture(scope="module")
def written(run, few, cohort, attributions, portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("provenance") / "report"
    found = replace(
        attributions,
        gates=attributions.gates[:2],
        events=attributions.events[
            attributions.events["subject_id"].isin(attributions.gates["subject_id"][:2])
        ],
    )

    def write(out):
        return cn.write_report(
            run, few, found, out, portrait=portrait, whole=cohort, command=COMMAND
        ).parent

    write(folder.with_name("again"))
    return write(folder)


def told_of(folder):
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


def refused(folder, run=None, data=None):
    with pytest.raises(CheckpointError) as caught:
        check_provenance(folder, run, data)
    return caught.value.problem


def with_table(cohort, name, change):
    """The cohort with one of its tables changed."""
    tables = {n: getattr(cohort, n) for n in ("observations", "statics", "inputs", "outcomes")}
    tables[name] = change(tables[name].copy())
    return Cohort.from_tables(tables.pop("observations"), **tables, schema=cohort.schema)


def test_a_report_passes_beside_its_own_run_and_data(written, run, few, cohort):
    for data in (cohort, few, None):
        assert check_provenance(written, cn.load_run(run.folder), data) == told_of(written)


def test_it_does_not_matter_how_the_data_came_to_be_read(written, cohort):
    again = with_table(cohort, "observations", lambda t: t.sample(frac=1, random_state=0))
    check_provenance(written, None, again)


@pytest.mark.parametrize(
    ("table", "column"), [("observations", "value"), ("outcomes", -1), ("statics", 1)]
)
def test_data_that_differ_in_one_cell_are_named(written, cohort, table, column):
    def change(held):
        place = held.columns.get_loc(column) if isinstance(column, str) else column
        cell = held.iloc[0, place]
        held.iloc[0, place] = 1 - cell if cell in (0, 1) else cell * 1.0009765625
        return held

    assert f"data: other {table}" in refused(written, None, with_table(cohort, table, change))


def test_fewer_subjects_are_told_by_their_number(written, cohort):
    assert "120 subjects in the report, 119 given" in refused(written, None, cohort[1:])


def test_another_run_is_named_by_what_makes_it_another(written, run):
    seeded = refused(written, replace(run, seed=7))
    assert "seed is 0 in the report, 7 in the run" in seeded
    assert "weights" not in seeded
    longer = replace(run, config=replace(run.config, epochs=9))
    assert "fit.epochs is 2 in the report, 9 in the run" in refused(written, longer)
    assert "run: other weights" in refused(written, replace(run, weights_sha256="0" * 64))
    table = run.parts.assign(split="tune")
    assert "run: other training part" in refused(written, replace(run, parts=table))


def test_a_recalibrated_run_is_another_run(written, run):
    line = np.array([0.0, 1.0])
    found = Recalibration(
        method="temperature", logit=line, value=2 * line, slope=2.0, evidence=(), n_records=40,
        n_events=20, verdict="halved",
    )  # fmt: skip
    assert refused(written, replace(run, calibration=found)).endswith("run: other calibration")


def test_an_altered_page_is_named(written, tmp_path):
    copy = shutil.copytree(written, tmp_path / "report")
    page = copy / "data.html"
    page.write_text(page.read_text(encoding="utf-8").replace("a", "b", 1), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"data\.html") as caught:
        check_provenance(copy)
    assert caught.value.exit_code == 3


def test_a_page_of_another_report_is_named_even_under_a_manifest_of_its_own(
    written, report, tmp_path
):
    def mix(folder):
        shutil.copytree(written, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        shutil.copyfile(report.parent / "cohort.html", folder / "cohort.html")

    write_folder(tmp_path / "mixed", mix, kind="report")
    with pytest.raises(CheckpointError, match=r"cohort\.html.*provenance"):
        check_provenance(tmp_path / "mixed")


def test_the_same_report_has_the_same_bytes(written):
    again = written.with_name("again")
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((written / n).read_bytes() == (again / n).read_bytes() for n in names)


def test_every_page_shows_the_command_the_code_the_seed_and_all_hashes(written, run):
    told = told_of(written)
    shown = [COMMAND, told["config"], run.weights_sha256, code()["source"], torch.__version__]
    shown += [told["data"][name]["sha256"] for name in ("read", "reported")]
    shown += [f"{name} {number}" for name, number in told["versions"].items()]
    for page in written.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        block = text[text.index('id="provenance"') :]
        assert all(str(escape(one)) in block for one in [*shown, "seed 0", "Seed of draws"])
        assert len(re.findall(r"<th scope=.?col", block)) == 2


def test_no_path_and_no_time_of_day_is_in_it(written, run):
    text = (written / "provenance.json").read_text(encoding="utf-8")
    assert str(run.folder.parent) not in text
    assert "/" not in re.sub(r'"scale": "[^"]*"', "", text)
    assert not re.search(r"20\d\d-\d\d|\d\d:\d\d", text)


def test_a_report_without_provenance_says_so(run):
    with pytest.raises(CheckpointError, match="does not say what it was made from"):
        check_provenance(run.folder)


@pytest.fixture(scope="module")
def steering():
    brain = WilsonCowanNetwork(simulate_connectome(6, seed=1), K=2.0)
    rest = find_equilibria(brain)[0]
    target = {brain.state_names[0]: float(rest.state[0]) + 0.03}
    return steer(brain, target, rest, horizon=20.0, n_stimulated=2, n_nulls=2, seed=5)


def test_a_brain_report_knows_its_connectome_its_seed_and_its_run(steering, run, tmp_path):
    folder = write_brain_report(steering, tmp_path / "steering", command="clinode control x").parent
    told = check_provenance(folder, None, simulate_connectome(6, seed=1))
    assert told["settings"]["seed"] == 5
    page = (folder / "index.html").read_text(encoding="utf-8")
    for shown in ("clinode control x", told["config"], told["data"]["connectome"]["sha256"]):
        assert shown in page
    assert "other weights" in refused(folder, None, simulate_connectome(6, seed=2))
    with pytest.raises(ArgumentError, match="without a run"):
        check_provenance(folder, run)
    own = write_brain_report(steering, tmp_path / "own", run=run).parent
    check_provenance(own, run)
    assert "weights" in refused(own, replace(run, weights_sha256="0" * 64))
