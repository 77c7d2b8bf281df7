import bz2
import zipfile

import numpy as np
import pytest
from scipy import sparse
from scipy.io import savemat

from clinode.brain.connectome import read_connectome
from clinode.errors import ArgumentError, SchemaError

LABELS = ("lV1", "lV2", "rV1", "rV2")
W = np.array([[0, 2, 0, 1.5], [3, 0, 1e-3, 0], [0, 1, 0, 1], [0.25, 0, 2, 0]])
CENTERS = np.arange(12.0).reshape(4, 3) - 5
LENGTHS = 20.5 * (W > 0)


def text(matrix):
    return "\n".join("   ".join(f"{value:.16e}" for value in row) for row in matrix) + "\n"


def centres():
    rows = (" ".join(map(repr, row.tolist())) for row in CENTERS)
    return "\n".join(f"{label}\t{row}" for label, row in zip(LABELS, rows, strict=True)) + "\n"


def packed(path, **texts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in texts.items():
            archive.writestr(name, content)
    return path


TVB = {  # the texts of its default connectivity, with those that are not read
    "weights.txt": text(W),
    "centres.txt": centres(),
    "tract_lengths.txt": text(LENGTHS),
    "areas.txt": "1.0\n2.0\n3.0\n4.0\n",
    "average_orientations.txt": text(CENTERS),
    "cortical.txt": "1\n1\n1\n1\n",
    "hemispheres.txt": "0\n0\n1\n1\n",
}


def same(found):
    np.testing.assert_array_equal(found.weights, W)
    assert found.labels == LABELS
    np.testing.assert_array_equal(found.centers, CENTERS)
    np.testing.assert_array_equal(found.tract_lengths, LENGTHS)


def test_the_zip_of_the_virtual_brain_gives_all_its_parts(tmp_path):
    same(read_connectome(packed(tmp_path / "connectivity_4.zip", **TVB)))


def test_its_texts_may_lie_in_a_folder_packed_and_beside_rubbish(tmp_path):
    texts = {f"connectivity_4/{name}": content for name, content in TVB.items()}
    lengths = texts.pop("connectivity_4/tract_lengths.txt")
    texts["connectivity_4/tract_lengths.txt.bz2"] = bz2.compress(lengths.encode())
    texts["__MACOSX/connectivity_4/._weights.txt"] = "\x00"
    texts["connectivity_4/centers.txt"] = texts.pop("connectivity_4/centres.txt")
    same(read_connectome(packed(tmp_path / "brain.zip", **texts)))


def test_it_may_have_weights_alone_or_empty_lengths(tmp_path):
    found = read_connectome(packed(tmp_path / "brain.zip", **{"weights.txt": text(W)}))
    assert found.centers is None
    assert found.labels[0] == "region_1"
    texts = TVB | {"tract_lengths.txt": "\n"}
    assert read_connectome(packed(tmp_path / "other.zip", **texts)).tract_lengths is None


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"centres.txt": centres()}, "no weights.txt"),
        ({"weights.txt": text(W), "weights_2.txt": text(W)}, "several texts may be the weights"),
        ({"weights.txt": "0 1\nx 0\n"}, "zip: weights.txt: row 2, column 1 of the weights"),
        (TVB | {"centres.txt": "a 1 2 3\n"}, r"centers have shape \(1, 3\), expected \(4, 3\)"),
        (TVB | {"centres.txt": "a 1 2\n" * 4}, r"centers have shape \(4, 2\)"),
        (TVB | {"tract_lengths.txt": text(LENGTHS[:2])}, r"tract_lengths have shape \(2, 4\)"),
        ({"weights.h5": "HDF"}, "expected a text"),
    ],
)
def test_a_zip_that_is_no_connectome_is_refused(tmp_path, texts, words):
    path = packed(tmp_path / "brain.zip", **texts)
    with pytest.raises(SchemaError, match=words):
        read_connectome(path)


def test_what_is_no_zip_is_refused(tmp_path):
    path = tmp_path / "brain.zip"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(SchemaError, match="can be unpacked"):
        read_connectome(path)
    with pytest.raises(ArgumentError, match="the texts in a zip have their names"):
        read_connectome(packed(tmp_path / "a.zip", **TVB), arrays={"weights": "W"})


@pytest.mark.parametrize("version", ["4", "5"])
def test_matlab_files_give_all_their_parts(tmp_path, version):
    path = tmp_path / "brain.mat"
    parts = {"weights": W, "centres": CENTERS, "lengths": LENGTHS}
    if version == "5":
        parts["labels"] = np.array(LABELS, dtype=object)  # a cell array
    savemat(path, parts, format=version)
    same(read_connectome(path, None if version == "5" else LABELS))


def test_labels_of_matlab_may_be_rows_of_letters(tmp_path):
    savemat(tmp_path / "brain.mat", {"weights": W, "labels": np.array(["a", "bcd", "e", "fg"])})
    assert read_connectome(tmp_path / "brain.mat").labels == ("a", "bcd", "e", "fg")


def test_the_only_square_matrix_of_a_matlab_file_is_its_weights(tmp_path):
    path = tmp_path / "brain.mat"
    savemat(path, {"SC": sparse.csc_array(W), "name": "somebody", "volumes": np.ones((4, 1))})
    np.testing.assert_array_equal(read_connectome(path).weights, W)
    savemat(path, {"SC": W, "FC": W})
    with pytest.raises(SchemaError, match="several may be it: 'SC', 'FC'"):
        read_connectome(path)
    np.testing.assert_array_equal(read_connectome(path, arrays={"weights": "FC"}).weights, W)


def test_matlab_files_that_are_not_read_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "new.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))
    with pytest.raises(SchemaError, match=r"version 7.3, which is HDF5.*'-v7'"):
        read_connectome(path)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124, b" ") + b"\x00\x01IM" + b"\x0e\x00\x00")
    with pytest.raises(SchemaError, match="not a Matlab file"):
        read_connectome(path)
    savemat(path, {"weights": W + 1j})
    with pytest.raises(SchemaError, match="holds complex128, expected numbers"):
        read_connectome(path)


HEADER = b"\x93NUMPY\x01\x00v\x00"


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (b"junk", "'weights' is no array"),
        (HEADER + b"{'descr': (((, }".ljust(117) + b"\n", "not an archive of plain arrays"),
        (
            HEADER
            + b"{'descr': '<f8', 'fortran_order': False, 'shape': (9000000, 9000000), }".ljust(117)
            + b"\n",
            "larger than the memory",
        ),
    ],
)
def test_arrays_with_a_broken_head_are_refused(tmp_path, stored, words):
    path = tmp_path / "brain.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", stored)
    with pytest.raises(SchemaError, match=words):
        read_connectome(path)


def test_one_number_is_no_connectome(tmp_path):
    np.savez(tmp_path / "brain.npz", weights=3.0)
    with pytest.raises(SchemaError, match="expected rows and columns"):
        read_connectome(tmp_path / "brain.npz")


def test_labels_stored_as_bytes_are_text(tmp_path):
    np.savez(tmp_path / "brain.npz", weights=W, labels=np.array(LABELS, dtype="S"))
    assert read_connectome(tmp_path / "brain.npz").labels == LABELS
