import json

import numpy as np
import pytest
import torch

from clinode.brain.connectome import Connectome, read_connectome, simulate_connectome
from clinode.errors import ArgumentError, SchemaError

LABELS = ("lh_precuneus", "lh_insula", "rh_insula")


def weights(n=3, seed=0):
    W = np.random.default_rng(seed).uniform(0.1, 1, (n, n))
    np.fill_diagonal(W, 0)
    return W


def small(**changes):
    given = {"weights": torch.tensor(weights()), "labels": LABELS} | changes
    return Connectome(**given)


# Files


def test_an_archive_gives_back_what_was_stored(tmp_path):
    W, centers, lengths = weights(), np.arange(9.0).reshape(3, 3), 10 * weights(seed=1)
    path = tmp_path / "brain.npz"
    np.savez(path, weights=W, labels=np.array(LABELS), centres=centers, tract_lengths=lengths)
    found = read_connectome(path)
    assert found.labels == LABELS
    np.testing.assert_array_equal(found.weights, W)
    np.testing.assert_array_equal(found.centers, centers)
    np.testing.assert_array_equal(found.tract_lengths, lengths)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("header", ["none", "top", "left", "both"])
def test_tables_are_read_with_and_without_labels(tmp_path, suffix, header):
    separator, W = {".csv": ",", ".tsv": "\t"}[suffix], weights()
    rows = [[repr(float(value)) for value in row] for row in W]
    if header in ("left", "both"):
        rows = [[label, *row] for label, row in zip(LABELS, rows, strict=True)]
    if header in ("top", "both"):
        rows = [["", *LABELS] if header == "both" else list(LABELS), *rows]
    path = tmp_path / f"brain{suffix}"
    path.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    found = read_connectome(path)
    np.testing.assert_array_equal(found.weights, W)
    assert found.labels == (("region_1", "region_2", "region_3") if header == "none" else LABELS)


def test_labels_may_come_from_a_file_or_the_caller(tmp_path):
    path, names = tmp_path / "brain.csv", tmp_path / "names.txt"
    np.savetxt(path, weights(), delimiter=",")
    names.write_text("\n".join(LABELS) + "\n")
    assert read_connectome(path, names).labels == LABELS
    assert read_connectome(path, ["a", "b", "c"]).labels == ("a", "b", "c")


def test_the_orientation_is_stated_not_guessed(tmp_path):
    path, W = tmp_path / "brain.npz", weights()
    np.savez(path, weights=W, tract_lengths=2 * W)
    sent = read_connectome(path, rows="sources")
    np.testing.assert_array_equal(sent.weights, W.T)
    np.testing.assert_array_equal(sent.tract_lengths, 2 * W.T)


def test_labels_that_repeat_are_numbered(tmp_path):
    path = tmp_path / "brain.npz"
    np.savez(path, weights=weights(), labels=["LOF", "PC", "LOF"])
    assert read_connectome(path).labels == ("LOF_1", "PC", "LOF_2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\n3,4\n5,6\n", r"shape \(3, 2\), expected a square"),
        ("0,1\n1,nan\n", "not finite, the first in row 2, column 2"),
        ("0,1,2\n1,0\n", "between 2 and 3 cells"),
        ("0,1\nx,0\n", "row 2, column 1 of the weights is not a number"),
        ("", "empty"),
        (",a,b\na,0,1\nc,1,0\n", "labels of rows and of columns differ"),
    ],
)
def test_tables_that_are_no_connectome_are_refused(tmp_path, text, words):
    path = tmp_path / "brain.csv"
    path.write_text(text)
    with pytest.raises(SchemaError, match=words) as caught:
        read_connectome(path)
    assert caught.value.where == "brain.csv"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"w": np.eye(2)}, "no array 'weights'"),
        ({"weights": np.array(["a"])}, "expected numbers"),
        ({"weights": np.eye(2), "labels": ["a", "b", "c"]}, "3 labels for 2 regions"),
        ({"weights": np.eye(2), "centres": np.zeros((2, 2))}, r"centers have shape \(2, 2\)"),
        ({"weights": np.eye(2), "tract_lengths": -np.eye(2)}, "2 tract lengths are negative"),
        ({"weights": np.array([None, 1], dtype=object)}, "plain arrays"),
    ],
)
def test_archives_that_are_no_connectome_are_refused(tmp_path, arrays, words):
    path = tmp_path / "brain.npz"
    np.savez(path, **arrays)
    with pytest.raises(SchemaError, match=words):
        read_connectome(path)


def test_what_is_no_file_of_a_connectome_is_refused(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "latin.csv").write_bytes(b"\xe9,1\n1,0\n")
    for name, words, error in (
        ("missing.npz", "no such file", ArgumentError),
        ("brain.xyz", "read from .npz, .csv, .tsv", ArgumentError),
        ("broken.npz", "plain arrays", SchemaError),
        ("latin.csv", "UTF-8", SchemaError),
    ):
        with pytest.raises(error, match=words):
            read_connectome(tmp_path / name)
    with pytest.raises(ArgumentError, match="'targets' or 'sources'"):
        read_connectome(tmp_path / "broken.npz", rows="columns")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": torch.ones(2, 3)}, "square"),
        ({"labels": ("a", "b")}, "2 labels for 3 regions"),
        ({"labels": ("a", "b", "b")}, "more than one region, 'b'"),
        ({"labels": ("a", " ", "b")}, "empty label"),
        ({"centers": torch.full((3, 3), torch.nan)}, "9 entries that are not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ArgumentError, match=words):
        small(**changes)


# Findings


def test_nothing_is_found_in_a_plain_connectome():
    assert small().findings == ()
    assert small().verdict == "3 regions, 6 weights, directed"


def test_what_may_be_a_mistake_is_kept_and_said():
    W = torch.zeros(6, 6).double()
    W[0, 1] = W[1, 0] = 1.0
    W[1, 2] = W[2, 1] = 0.5
    W[3, 4] = W[4, 3] = -0.2
    W[0, 0] = 2.0
    found = Connectome(weights=W, labels=tuple("abcdef")).findings
    assert {one.kind: one.regions for one in found} == {
        "negative weights": ("d", "e"),
        "self weights": ("a",),
        "isolated regions": ("f",),
        "disconnected parts": ("d", "e"),
    }
    assert found[1].message == "self weights at 1 region (a)"
    assert found[3].message == "2 separate parts, 2 regions outside the largest (d, e)"


def test_a_region_that_only_sends_is_a_part_of_its_own_way():
    W = torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]).double()
    (found,) = Connectome(weights=W, labels=LABELS).findings
    assert (found.kind, found.regions) == ("one-way parts", ("rh_insula",))


# Changes


def test_scaling_bounds_what_a_region_receives_and_keeps_proportions():
    scaled = small().scaled().weights
    assert float(scaled.sum(-1).max()) == pytest.approx(1)
    torch.testing.assert_close(scaled / scaled[0, 1], small().weights / small().weights[0, 1])
    silent = small(weights=torch.zeros(3, 3))
    assert torch.equal(silent.scaled().weights, silent.weights)


def test_permuting_moves_everything_that_belongs_to_a_region():
    connectome = small(centers=torch.arange(9.0).reshape(3, 3), tract_lengths=torch.ones(3, 3))
    moved = connectome.permuted([2, 0, 1])
    assert moved.labels == ("rh_insula", "lh_precuneus", "lh_insula")
    assert moved.weights[1, 0] == connectome.weights[0, 2]
    assert moved.centers is not None
    assert moved.centers[0].tolist() == [6, 7, 8]
    with pytest.raises(ArgumentError, match="positions from 0 to 2"):
        connectome.permuted([0, 3])


def test_self_weights_can_be_taken_away():
    own = small(weights=torch.tensor(weights()) + torch.eye(3))
    assert [one.kind for one in own.findings] == ["self weights"]
    assert own.without_self_weights().findings == ()


def test_it_is_told_in_tables_and_words():
    connectome = small(centers=torch.zeros(3, 3))
    table = connectome.to_pandas()
    assert list(table.columns[:2]) == ["region", "connections in"]
    assert table["strength in"].tolist() == pytest.approx(connectome.weights.sum(1).tolist())
    assert (
        "influence of region j on region i"
        in json.loads(json.dumps(connectome.to_dict()))["orientation"]
    )


# Generated


@pytest.mark.parametrize("n", [4, 10, 68, 90, 200])
def test_a_generated_connectome_is_whole_symmetric_and_named(n):
    found = simulate_connectome(n, seed=3)
    assert found.n_regions == n
    assert found.findings == ()
    assert not found.is_directed
    assert float(found.weights.max()) == 1.0
    assert "lh_precuneus" in found.labels
    left, right = found.labels[: n // 2], found.labels[n // 2 :]
    assert [name.replace("lh_", "rh_") for name in left] == list(right)
    assert found.centers is not None
    assert found.centers[: n // 2, 0].mean() < 0 < found.centers[n // 2 :, 0].mean()


def test_generated_weights_fall_with_distance():
    found = simulate_connectome(100, seed=0)
    assert found.tract_lengths is not None
    lengths, W = found.tract_lengths[:50, :50], found.weights[:50, :50]
    log = W[W > 0].log()
    assert np.corrcoef(lengths[W > 0], log)[0, 1] < -0.4


def test_one_seed_gives_one_connectome():
    first, again, other = (simulate_connectome(20, seed) for seed in (1, 1, 2))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize("n", [3, 2, 7])
def test_two_hemispheres_have_an_even_number_of_regions(n):
    with pytest.raises(ArgumentError, match="even number"):
        simulate_connectome(n)


# Open data


EXPECTED = {
    "hcp_desikan68": (68, set()),
    "hcp_glasser360": (360, {"negative weights"}),
    "tvb76": (76, {"self weights", "isolated regions"}),
    "hagmann998": (998, {"isolated regions"}),
    "celegans279": (279, {"self weights", "one-way parts"}),
    "aal2_gw5": (94, set()),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_open_connectomes_are_read_with_what_is_odd_about_them(data_dir, name):
    path = data_dir / "connectomes" / name / "connectome.npz"
    if not path.is_file():
        pytest.skip(f"the data folder holds no connectome '{name}'")
    n, kinds = EXPECTED[name]
    found = read_connectome(path)
    with np.load(path) as stored:
        np.testing.assert_array_equal(found.weights, stored["weights"])
        assert (found.centers is None) == ("centres" not in stored.files)
    assert found.n_regions == len(set(found.labels)) == n
    assert {one.kind for one in found.findings} >= kinds


def test_errors_carry_no_weight():
    with pytest.raises(ArgumentError, match="row 1, column 2") as caught:
        small(weights=torch.tensor([[0.0, torch.inf, 7.77], [1, 1, 1], [1, 1, 1]]))
    assert "7.77" not in str(caught.value)
