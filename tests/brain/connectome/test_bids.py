import json

import numpy as np
import pytest

from clinode.brain.connectome import read_connectome
from clinode.errors import SchemaError

LABELS = ("lh_insula", "lh_cuneus", "rh_insula")
W = np.array([[0, 2, 0.5], [2, 0, 1], [0.5, 1, 0]])
STEM = "sub-01_seg-Desikan_meas-streamlineCount"
NODES = "matrix_index\tnode_file\tnode_index\tlabel\n"


def dataset(folder, matrix=W, dense=True, labels=None, nodes=None, **said):
    """A relmat with its sidecar and its node file."""
    path = folder / f"{STEM}_relmat{'.dense' if dense else ''}.tsv"
    rows = ["\t".join(f"{value:.17g}" for value in row) for row in matrix]
    if labels is not None:
        pairs = zip(labels, rows, strict=True)
        rows = ["\t".join(["Node", *labels]), *(f"{label}\t{row}" for label, row in pairs)]
    path.write_text("\n".join(rows) + "\n")
    if said:
        (folder / f"{STEM}_relmat.json").write_text(json.dumps(said))
    if nodes is not None:
        (folder / "seg-Desikan_nodeindices.tsv").write_text(nodes)
    return path


def node_file(order=(0, 1, 2), first=0):
    rows = (f"{i + first}\tatlas-Desikan\t{1001 + i}\t{LABELS[i]}\n" for i in order)
    return NODES + "".join(rows)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_bare_matrix_takes_its_names_from_the_node_file(tmp_path, dense, order):
    path = dataset(tmp_path, dense=dense, nodes=node_file(order), Directed=False, Weighted=True)
    found = read_connectome(path)
    np.testing.assert_array_equal(found.weights, W)
    assert found.labels == LABELS


def test_the_sidecar_may_name_the_node_file_and_count_from_one(tmp_path):
    (tmp_path / "other_nodeindices.tsv").write_text(NODES + "0\tx\t1\tnobody\n")
    axes = [{"Name": "row", "NodeFile": "seg-Desikan_nodeindices.tsv"}] * 2
    path = dataset(tmp_path, nodes=node_file(first=1), Axes=axes)
    assert read_connectome(path).labels == LABELS


def test_a_table_with_names_is_read_and_held_to_its_node_file(tmp_path):
    path = dataset(tmp_path, labels=LABELS, dense=False)
    assert read_connectome(path).labels == LABELS
    path = dataset(tmp_path, labels=LABELS[::-1], dense=False, nodes=node_file())
    with pytest.raises(SchemaError, match="labels of the table and of its node file differ"):
        read_connectome(path)


def test_a_diagonal_that_means_nothing_is_left_out(tmp_path):
    own = W + np.diag([np.nan, 1, 1])
    found = read_connectome(dataset(tmp_path, own, ValidDiagonal=False))
    np.testing.assert_array_equal(found.weights, W)
    with pytest.raises(SchemaError, match="not finite, the first in row 1, column 1"):
        read_connectome(dataset(tmp_path, own, ValidDiagonal=True))


@pytest.mark.parametrize(
    ("change", "said", "words"),
    [
        (np.triu(W), {"Directed": False}, "undirected, and the matrix is not symmetric"),
        (-W, {"NonNegative": True}, "no weight is negative, and some are"),
        (W, {"Directed": "no"}, "'Directed' of its sidecar must be true or false"),
        (W, {"nodes": node_file((0, 1))}, "2 labels for 3 regions"),
        (W, {"nodes": node_file((0, 2))}, "does not count the rows"),
        (W, {"nodes": NODES + "x\ty\tz\tname\n"}, "no matrix_index or no label"),
    ],
)
def test_claims_that_the_numbers_deny_are_refused(tmp_path, change, said, words):
    with pytest.raises(SchemaError, match=words):
        read_connectome(dataset(tmp_path, change, **said))


def test_a_sidecar_that_is_no_json_is_refused(tmp_path):
    path = dataset(tmp_path)
    (tmp_path / f"{STEM}_relmat.json").write_text("{")
    with pytest.raises(SchemaError, match="not a text in JSON"):
        read_connectome(path)
