import numpy as np
import pytest
import torch

from clinode.brain.connectome import read_connectome, simulate_connectome
from clinode.errors import ArgumentError, SchemaError

LABELS = ("lh_precuneus", "lh_insula", "rh_insula")


def weights(n=3, seed=0):
    W = np.random.default_rng(seed).uniform(0.1, 1, (n, n))
    np.fill_diagonal(W, 0)
    return W


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


def test_blanks_may_stand_between_numbers(tmp_path):
    path = tmp_path / "brain.txt"
    np.savetxt(path, weights())
    np.testing.assert_allclose(read_connectome(path).weights, weights(), rtol=1e-15)


def test_centers_and_lengths_may_lie_in_files_of_their_own(tmp_path):
    path, lengths, centers = (tmp_path / f"{name}.csv" for name in ("W", "lengths", "centers"))
    np.savetxt(path, weights(), delimiter=",")
    np.savetxt(lengths, 10 * weights(seed=1), delimiter=",")
    rows = [f"{name},{i},0.5,-{i}" for i, name in enumerate(LABELS)]
    centers.write_text("\n".join(["region,x,y,z", *rows]) + "\n")
    found = read_connectome(path, LABELS, centers=centers, tract_lengths=lengths)
    np.testing.assert_allclose(found.tract_lengths, 10 * weights(seed=1))
    np.testing.assert_array_equal(found.centers, [[0, 0.5, 0], [1, 0.5, -1], [2, 0.5, -2]])
    turned = read_connectome(path, LABELS, rows="sources", tract_lengths=weights(seed=1))
    np.testing.assert_allclose(turned.tract_lengths, weights(seed=1).T)
    with pytest.raises(SchemaError, match="labels of the regions and of the centers differ"):
        read_connectome(path, LABELS[::-1], centers=centers)
    with pytest.raises(ArgumentError, match="no such file of tract lengths"):
        read_connectome(path, tract_lengths=tmp_path / "none.csv")


def test_parts_may_have_other_names_in_an_archive(tmp_path):
    path = tmp_path / "brain.npz"
    np.savez(path, SC=weights(), distances=weights(seed=1), weights=weights(seed=2))
    found = read_connectome(path, arrays={"weights": "SC", "tract_lengths": "distances"})
    np.testing.assert_array_equal(found.weights, weights())
    np.testing.assert_array_equal(found.tract_lengths, weights(seed=1))
    with pytest.raises(ArgumentError, match="no array 'FC', there are 'SC', 'distances'"):
        read_connectome(path, arrays={"weights": "FC"})
    with pytest.raises(ArgumentError, match="no part 'edges'"):
        read_connectome(path, arrays={"edges": "SC"})


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
        (",a,b\na,0,1\nc,1,0\n", "labels of rows and of columns differ, first at 2: 'b' and 'c'"),
        ("a,b\n", "labels and no numbers"),
        ("0;1\n1;0\n", "labels and no numbers. Fix: cells stand between ','"),
        ("0,1\n1_0,0\n", "row 2, column 1 of the weights is not a number"),
        (f"{'1' * 200_000},0\n0,1\n", "not a table of cells"),
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
        ("brain.xyz", "read from .npz, .mat, .zip, .csv, .tsv, .txt", ArgumentError),
        ("broken.npz", "plain arrays", SchemaError),
        ("latin.csv", "UTF-8", SchemaError),
    ):
        with pytest.raises(error, match=words):
            read_connectome(tmp_path / name)
    with pytest.raises(ArgumentError, match="'targets' or 'sources'"):
        read_connectome(tmp_path / "broken.npz", rows="columns")


# Open data

FOLDERS = {  # regions, and what is odd about them
    "aal2_gw5": (94, set()),
    "aal2_hcp_group": (94, set()),
    "celegans279": (279, {"self weights", "one-way parts"}),
    "chimp114_species": (114, set()),
    "hagmann66": (66, {"self weights"}),
    "hagmann998": (998, {"isolated regions"}),
    "hcp_desikan68": (68, set()),
    "hcp_glasser360": (360, {"negative weights"}),
    "hcp_schaefer100": (100, {"negative weights"}),
    "hcp_schaefer200": (200, {"negative weights"}),
    "hcp_schaefer400": (400, {"negative weights"}),
    "human114_species": (114, set()),
    "macaque82": (82, set()),
    "marmoset55_species": (55, set()),
    "mouse98": (98, {"self weights"}),
    "tms_eeg_schaefer200": (200, set()),
    "tvb76": (76, {"self weights", "isolated regions"}),
}
UNDIRECTED = {"aal2_hcp_group", "chimp114_species", "human114_species", "tms_eeg_schaefer200"}


@pytest.mark.parametrize("name", FOLDERS)
def test_open_connectomes_are_read_with_what_is_odd_about_them(data_dir, name):
    path = data_dir / "connectomes" / name / "connectome.npz"
    if not path.is_file():
        pytest.skip(f"the data folder holds no connectome '{name}'")
    n, kinds = FOLDERS[name]
    found = read_connectome(path)
    with np.load(path) as stored:
        np.testing.assert_array_equal(found.weights, stored["weights"])
        assert (found.centers is None) == ("centres" not in stored.files)
        lengths = {"tract_lengths", "lengths"} & set(stored.files)
        assert (found.tract_lengths is None) == (not lengths)
    assert found.n_regions == len(set(found.labels)) == n
    assert {one.kind for one in found.findings} == kinds
    assert found.is_directed == (name not in UNDIRECTED and not name.startswith("hcp"))


def test_every_folder_of_open_connectomes_is_known_here(data_dir):
    folders = {path.parent.name for path in data_dir.glob("connectomes/*/connectome.npz")}
    assert folders <= set(FOLDERS)


def test_other_arrays_of_open_connectomes_are_read_by_name(data_dir):
    folder = data_dir / "connectomes"
    path = folder / "celegans279" / "connectome.npz"
    if not path.is_file():
        pytest.skip("the data folder holds no connectome 'celegans279'")
    gap = read_connectome(path, arrays={"weights": "gap"})
    assert not gap.is_directed
    lengths = {"tract_lengths": "distances"}
    tms = read_connectome(folder / "tms_eeg_schaefer200" / "connectome.npz", arrays=lengths)
    assert tms.tract_lengths is not None
    assert 50 < float(tms.tract_lengths.max()) < 400  # mm
    both = {"weights": "weights_with_sctx"}
    path = folder / "hcp_desikan68" / "connectome.npz"
    with np.load(path) as stored:
        names = [*stored["labels"], *stored["labels_sctx"]]
    assert read_connectome(path, names, arrays=both).n_regions == 82


def test_an_open_connectome_survives_every_format(data_dir, tmp_path):
    path = data_dir / "connectomes" / "macaque82" / "connectome.npz"
    if not path.is_file():
        pytest.skip("the data folder holds no connectome 'macaque82'")
    found = read_connectome(path)
    np.savetxt(tmp_path / "W.tsv", found.weights, delimiter="\t", fmt="%.17g")
    again = read_connectome(tmp_path / "W.tsv", found.labels, tract_lengths=found.tract_lengths)
    assert torch.equal(again.weights, found.weights)
    assert torch.equal(again.tract_lengths, found.tract_lengths)


def test_the_default_is_a_generated_one_that_nothing_is_odd_about():
    assert simulate_connectome().verdict == "68 regions, 1368 weights, undirected"
