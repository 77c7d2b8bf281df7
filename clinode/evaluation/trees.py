"""Boosted trees as plain arrays.

A histogram gradient boosting model of scikit-learn, copied into flat arrays of nodes: it can be
stored beside a network's weights, read on any machine and version, and asked without a pickle.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier

from clinode.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """A sum of binary regression trees, on the logit.

    A row goes left where its feature is at most the threshold, or where it is missing and
    `missing_left`. A leaf is its own left and right child; every other child comes later than its
    parent, so every descent ends.

    Raises:
        CheckpointError: The arrays do not describe such trees.
    """

    base: Float[np.ndarray, " one"]
    root: Int[np.ndarray, " tree"]
    feature: Int[np.ndarray, " node"]
    threshold: Float[np.ndarray, " node"]
    missing_left: Bool[np.ndarray, " node"]
    left: Int[np.ndarray, " node"]
    right: Int[np.ndarray, " node"]
    value: Float[np.ndarray, " node"]

    def __post_init__(self):
        node = np.arange(len(self.value))
        child = np.stack([self.left, self.right])
        is_leaf = (child == node).all(axis=0)
        descends = (child > node).all(axis=0) & (child < len(node)).all(axis=0)
        in_range = (self.root >= 0).all() and (self.root < len(node)).all()
        if not (in_range and (is_leaf | descends).all() and (self.feature >= 0).all()):
            raise CheckpointError("the arrays of the boosted trees are not those of trees")

    @classmethod
    def from_sklearn(cls, model: HistGradientBoostingClassifier) -> "BoostedTrees":
        """Copy a fitted model of two classes without categorical features.

        scikit-learn has no public view of its trees; the private one read here has been the same
        since version 1.0, and a test compares the predictions.
        """
        trees = [tree.nodes for (tree,) in model._predictors]
        root = np.cumsum([0, *map(len, trees[:-1])])
        nodes = np.concatenate(trees)
        own = np.arange(len(nodes))
        offset = np.repeat(root, [len(tree) for tree in trees])
        is_leaf = nodes["is_leaf"].astype(bool)
        return cls(
            base=np.ravel(model._baseline_prediction).astype(np.float64),
            root=root.astype(np.int32),
            feature=np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int32),
            threshold=nodes["num_threshold"].astype(np.float64),
            missing_left=nodes["missing_go_to_left"].astype(bool),
            left=np.where(is_leaf, own, nodes["left"] + offset).astype(np.int32),
            right=np.where(is_leaf, own, nodes["right"] + offset).astype(np.int32),
            value=np.where(is_leaf, nodes["value"], 0.0),
        )

    def logit(self, features: Float[np.ndarray, "row feature"]) -> Float[np.ndarray, " row"]:
        """Sum of the leaves that each row falls into; NaN stands for missing."""
        logit = np.empty(len(features))
        for begin in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            logit[rows] = self.base + self._leaf_values(features[rows]).sum(axis=1)
        return logit

    def _leaf_values(self, features: np.ndarray) -> np.ndarray:
        row = np.arange(len(features))[:, None]
        node = np.tile(self.root, (len(features), 1))
        while True:
            x = features[row, self.feature[node]]
            goes_left = np.where(np.isnan(x), self.missing_left[node], x <= self.threshold[node])
            child = np.where(goes_left, self.left[node], self.right[node])
            if np.array_equal(child, node):
                return self.value[node]
            node = child


_ROWS_AT_ONCE = 4096  # some 10 MB an array at 300 trees
