import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from clinode.attribution.bench import score_map, unmeasured_share
from clinode.errors import ArgumentError


def test_a_hand_table_of_one_subject():
    # four cells scaled to about 0, .25, .5, 1; the third and the fourth matter
    found = score_map(np.array([[0.0, -1.0, 2.0, 4.0]]), np.array([[False, False, True, True]]))
    assert (found.auprc, found.auroc, found.chance, found.top) == (1.0, 1.0, 0.5, 1.0)
    # precision 1/2, 2/3, 1, 1 and recall 1, 1, 1, 1/2 at the thresholds 0, .25, .5, 1
    assert found.aup == pytest.approx(0.25 * (0.5 + 2 / 3) / 2 + 0.25 * (2 / 3 + 1) / 2 + 0.5, 1e-3)
    assert found.aur == pytest.approx(0.5 + 0.5 * 0.75, 1e-3)
    assert found.information == pytest.approx(1 + abs(np.log2(1 - 1 / (1 + 2.5e-6) + 1e-5)), 1e-2)
    assert found.entropy == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_sklearn_on_maps_scaled_by_subject(seed):
    draw = np.random.default_rng(seed)
    values, truth = draw.normal(size=(7, 9, 3)), draw.random((7, 9, 3)) < 0.3
    measured = draw.random(truth.shape) < 0.6
    found = score_map(values, truth, measured)
    scaled = np.zeros(values.shape)
    for subject in range(7):
        here = np.abs(values[subject][measured[subject]])
        scaled[subject][measured[subject]] = (here - here.min()) / (np.ptp(here) + 1e-5)
    a, matters = scaled[measured], truth[measured]
    assert found.auprc == pytest.approx(average_precision_score(matters, a))
    assert found.auroc == pytest.approx(roc_auc_score(matters, a))
    assert found.chance == matters.mean()


def test_rounding_a_perfect_map_moves_all_but_the_ranks():
    draw = np.random.default_rng(0)
    truth = draw.random((5, 200)) < 0.1
    fine = np.where(truth, draw.uniform(0.1, 1.0, truth.shape), 0.0)
    plain, rounded = score_map(fine, truth), score_map(truth.astype(float), truth)
    assert plain.auprc == rounded.auprc == 1.0
    assert rounded.aur > 0.99 > plain.aur
    assert rounded.information > 3 * plain.information
    assert rounded.entropy < plain.entropy / 10


def test_the_share_on_unmeasured_cells_is_counted():
    values, measured = np.array([[3.0, -1.0]]), np.array([[True, False]])
    assert unmeasured_share(values, measured) == 0.25
    assert unmeasured_share(values, None) == 0.0
    assert unmeasured_share(0 * values, measured) == 0.0


def test_what_is_withheld_ranks_last():
    truth = np.array([[True, False], [True, False]])
    found = score_map(np.array([[np.nan, np.nan], [2.0, 1.0]]), truth)
    assert found.auprc == pytest.approx(0.5 * 1 + 0.5 * 0.5)


@pytest.mark.parametrize("truth", [np.zeros((2, 3), bool), np.ones((2, 3), bool)])
def test_no_score_exists_where_nothing_or_everything_matters(truth):
    with pytest.raises(ArgumentError, match="no score exists"):
        score_map(np.ones((2, 3)), truth)


def test_a_map_of_another_shape_is_refused():
    with pytest.raises(ArgumentError, match="shape"):
        score_map(np.ones((2, 3)), np.ones((2, 4), bool))
