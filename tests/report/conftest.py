"""One report on simulated patients, written once for all tests that read pages."""

import pytest

import clinode as cn


@pytest.fixture(scope="session")
def cohort():
    return cn.simulate_cohort(120, seed=3)


@pytest.fixture(scope="session")
def run(cohort, tmp_path_factory):
    train, held_out = cn.split(cohort, fractions=(0.8, 0.2))
    del held_out
    outcome = cohort.outcomes.columns[-1]
    return cn.fit(
        cn.sequence.LinearLatentODE(),
        train,
        task=cn.Classify(outcome),
        out=tmp_path_factory.mktemp("runs") / "run",
        config=cn.FitConfig(epochs=2),
    )


@pytest.fixture(scope="session")
def attributions(run, cohort):
    return cn.explain(run, cohort, subjects=cohort.subjects[:12])


@pytest.fixture(scope="session")
def portrait(run):
    return cn.portrait(run.model.latent_system)


@pytest.fixture(scope="session")
def report(run, cohort, attributions, portrait, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "report"
    return cn.write_report(run, cohort, attributions, folder, portrait=portrait)
