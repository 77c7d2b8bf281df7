import numpy as np
import pandas as pd
import pytest

from clinode.errors import ArgumentError
from clinode.evaluation.survival import (
    brier,
    concordance,
    evaluate_survival,
    integrated_brier,
    time_dependent_auc,
)
from clinode.evaluation.survival_curves import Censoring, FollowUp, aalen_johansen, still_watched


def censored_sample(n=120, seed=7):
    """Exponential times that a risk shortens, with independent censoring."""
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=n)
    time = generator.exponential(10 * np.exp(-0.7 * risk))
    lost = generator.exponential(15, size=n)
    end, event = np.minimum(time, lost), time <= lost
    return generator, risk, end, event


def competing_sample(n=60, seed=3):
    """Rounded times, so that there are ties of every kind."""
    generator = np.random.default_rng(seed)
    end = np.ceil(generator.exponential(6.0, size=n))
    kind = generator.choice([0, 1, 2], size=n, p=[0.3, 0.4, 0.3])
    return FollowUp(end, kind, np.zeros(n)), np.round(generator.random(n), 1)


def once(n):
    return np.ones((1, n))


def test_aalen_johansen_is_the_table_computed_by_hand():
    end = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0])
    cause = np.array([1, 0, 2, 1, 0, 2])
    found = aalen_johansen(FollowUp(end, cause, np.zeros(6)), np.array([0.5, 1, 2, 3, 4, 5]), 2)[0]
    first = np.array([0, 1 / 6, 1 / 6, 1 / 6 + 2 / 3 / 3, 1 / 6 + 2 / 9, 1 / 6 + 2 / 9])
    second = np.array([0, 0, 1 / 6, 1 / 6, 1 / 6, 1 / 6 + 4 / 9])
    np.testing.assert_allclose(found, np.stack([first, second], axis=1))


def test_who_enters_late_is_at_risk_from_then_on():
    followed = FollowUp(np.array([1.0, 3.0, 4.0]), np.array([1, 1, 1]), np.array([0.0, 1.0, 2.0]))
    assert followed.at_risk(once(3)).tolist() == [[1.0, 2.0, 1.0]]
    weights = np.array([[1.0, 0.0, 3.0]])
    assert followed.at_risk(weights).tolist() == [[1.0, 3.0, 3.0]]


def test_without_censoring_incidences_are_plain_shares():
    generator = np.random.default_rng(0)
    end, cause = generator.exponential(size=200), generator.integers(1, 3, 200)
    found = aalen_johansen(FollowUp(end, cause, np.zeros(200)), np.array([0.5, 2.0]), 2)[0]
    for row, hour in zip(found, (0.5, 2.0), strict=True):
        shares = [((end <= hour) & (cause == k)).mean() for k in (1, 2)]
        np.testing.assert_allclose(row, shares)


def test_at_a_tie_events_come_before_censoring():
    followed = FollowUp(np.array([1.0, 1.0, 2.0]), np.array([1, 0, 1]), np.zeros(3))
    assert still_watched(followed, once(3)).tolist() == [[1.0, 0.5, 0.5]]


def kept_by_hand(followed, hour: float, *, before: bool) -> float:
    """G by a loop over censored times, events first at ties."""
    kept = 1.0
    for time in np.unique(followed.end[followed.cause == 0]):
        if time > hour or (before and time == hour):
            break
        lost = ((followed.end == time) & (followed.cause == 0)).sum()
        risk = ((followed.end > time) | ((followed.end == time) & (followed.cause == 0))).sum()
        kept *= 1 - lost / risk
    return kept


@pytest.mark.parametrize("cause", [1, 2])
def test_measures_are_those_of_loops_over_pairs(cause):
    followed, risk = competing_sample()
    n, hour, until = len(followed), 5.0, 9.0
    own = [kept_by_hand(followed, t, before=True) for t in followed.end]
    at_hour = kept_by_hand(followed, hour, before=False)
    end, kind, risks = followed.end.tolist(), followed.cause.tolist(), risk.tolist()
    auc, harrell, uno = [], [], []  # (weight of agreement, weight) of each pair
    square = 0.0
    for i in range(n):
        is_case = end[i] <= hour and kind[i] == cause
        if end[i] > hour:
            square += risks[i] ** 2 / at_hour
        elif kind[i]:
            square += (is_case - risks[i]) ** 2 / own[i]
        for j in range(n):
            agrees = (risks[i] > risks[j]) + 0.5 * (risks[i] == risks[j])
            if is_case and (end[j] > hour or kind[j] not in (0, cause)):
                weight = 1 / own[i] / (at_hour if end[j] > hour else own[j])
                auc.append((weight * agrees, weight))
            if kind[i] != cause:
                continue
            later = end[j] > end[i] or (end[j] == end[i] and kind[j] == 0)
            if later or kind[j] not in (0, cause):
                harrell.append((agrees, 1))
                if end[i] < until:
                    weight = 1 / own[i] / (own[i] if later else own[j])
                    uno.append((weight * agrees, weight))
    auc, harrell, uno = (np.sum(pairs, axis=0) for pairs in (auc, harrell, uno))
    weights, censoring = once(n), Censoring(followed)
    found = time_dependent_auc(followed, censoring, risk, hour, cause, weights)[0]
    assert found == pytest.approx(auc[0] / auc[1], abs=1e-12)
    found = concordance(followed, risk, cause, weights)[0]
    assert found == pytest.approx(harrell[0] / harrell[1], abs=1e-12)
    found = concordance(followed, risk, cause, weights, censoring=censoring, until=until)[0]
    assert found == pytest.approx(uno[0] / uno[1], abs=1e-12)
    found = brier(followed, censoring, risk, hour, cause, weights)[0]
    assert found == pytest.approx(square / n, abs=1e-12)


def test_a_resample_is_measured_like_a_sample_with_copies():
    followed, risk = competing_sample()
    drawn = np.sort(np.random.default_rng(1).integers(len(followed), size=len(followed)))
    weights = np.bincount(drawn, minlength=len(followed))[None].astype(float)
    copies = FollowUp(followed.end[drawn], followed.cause[drawn], np.zeros(len(drawn)))
    grid = np.array([2.0, 4.0, 6.0])
    wide = np.repeat(risk[:, None], 3, axis=1)
    for measure in (
        lambda f, c, r, w: time_dependent_auc(f, c, r[:, 0], 5.0, 1, w),
        lambda f, c, r, w: integrated_brier(f, c, r, grid, 2, w),
        lambda f, c, r, w: concordance(f, r[:, 0], 1, w),
        lambda f, c, r, w: concordance(f, r[:, 0], 1, w, censoring=c, until=9.0),
        lambda f, c, r, w: aalen_johansen(f, grid, 2, w)[:, 2, 1],
    ):
        weighted = measure(followed, Censoring(followed), wide, weights)
        copied = measure(copies, Censoring(copies), wide[drawn], once(len(drawn)))
        np.testing.assert_allclose(weighted, copied, rtol=1e-12)


def test_what_cannot_be_decided_says_why():
    end, cause = np.array([1.0, 2.0, 3.0, np.nan]), np.array([0.0, 0.0, 1.0, np.nan])
    ask = {"model": lambda hours: np.full((4, len(hours), 2), 0.2)}
    result = evaluate_survival(
        end, cause, ask, horizons=(1.0, 2.0, 5.0), n_causes=2, n_resamples=20
    )
    assert result.n_unknown == 1
    assert "no event of this cause" in result.causes[1].metrics["auc"].verdict
    late = evaluate_survival(
        end,
        cause,
        ask,
        horizons=(1.0,),
        n_causes=1,
        entry=np.array([0.5, 0.5, 0.5, np.nan]),
        n_resamples=20,
    )
    assert late.n_late == 3
    assert "no record was watched from" in late.causes[0].metrics["brier"].verdict


def test_predictions_that_are_no_probabilities_are_refused():
    end, cause = np.array([1.0, 2.0]), np.array([0.0, 1.0])
    with pytest.raises(ArgumentError, match="must be named 'model'"):
        evaluate_survival(end, cause, {}, horizons=(1.0,), n_causes=1)
    ask = {"model": lambda hours: np.full((2, len(hours), 1), 1.5)}
    with pytest.raises(ArgumentError, match="are no probabilities"):
        evaluate_survival(end, cause, ask, horizons=(1.0,), n_causes=1)
    with pytest.raises(ArgumentError, match="1 records do not end"):
        FollowUp(np.array([1.0]), np.array([1]), np.array([1.0]))


def test_measures_agree_with_those_of_scikit_survival_and_lifelines():
    # scikit-survival 0.28.0 and lifelines 0.30.3 on this very sample
    generator, risk, end, event = censored_sample()
    entry = np.where(generator.random(120) < 0.4, generator.random(120) * end * 0.6, 0.0)
    kind = np.where(event, 1 + (generator.random(120) < 0.35), 0)
    followed, weights = FollowUp(end, event.astype(int), np.zeros(120)), once(120)
    censoring, hour = Censoring(followed), np.array([5.0])
    assert time_dependent_auc(followed, censoring, risk, 5.0, 1, weights)[0] == pytest.approx(
        0.740439893619599, abs=1e-12
    )
    assert concordance(followed, risk, 1, weights)[0] == pytest.approx(
        0.6879699248120301, abs=1e-12
    )
    uno = concordance(followed, risk, 1, weights, censoring=censoring, until=8.0)[0]
    assert uno == pytest.approx(0.6863531058268708, abs=1e-12)
    probability = 1 / (1 + np.exp(-(risk - 0.3)))
    assert brier(followed, censoring, probability, 5.0, 1, weights)[0] == pytest.approx(
        0.19662671174949775, abs=1e-12
    )
    grid = 8.0 * np.arange(1, 25) / 24
    wide = 1 - (1 - probability)[:, None] ** (grid / 5.0)
    assert integrated_brier(followed, censoring, wide, grid, 1, weights)[0] == pytest.approx(
        0.16249218753899153, abs=1e-12
    )
    assert 1 - aalen_johansen(followed, hour, 1)[0, 0, 0] == pytest.approx(0.5943611469079448)
    late = aalen_johansen(FollowUp(end, event.astype(int), entry), hour, 1)
    assert 1 - late[0, 0, 0] == pytest.approx(0.5474082886301994)
    competing = aalen_johansen(FollowUp(end, kind, np.zeros(120)), hour, 2)
    assert competing[0, 0, 1] == pytest.approx(0.12987651145251042)


def test_incidences_of_pbc2_are_those_of_lifelines(data_dir):
    if not (data_dir / "pbc2" / "pbc2.csv").is_file():
        pytest.skip("no pbc2 in the data folder")
    patients = pd.read_csv(data_dir / "pbc2" / "pbc2.csv").groupby("id").first()
    cause = patients["status"].map({"alive": 0, "dead": 1, "transplanted": 2}).to_numpy()
    followed = FollowUp(patients["years"].to_numpy(), cause, np.zeros(len(patients)))
    found = aalen_johansen(followed, np.array([2.0, 5.0, 10.0]), 2)[0]
    death = [0.1057692307692308, 0.28277370789355644, 0.4873294917356736]
    transplantation = [0.0032051282051282037, 0.048252891062901634, 0.10341365871514795]
    np.testing.assert_allclose(found, np.stack([death, transplantation], axis=1), rtol=1e-9)
