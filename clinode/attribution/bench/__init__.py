"""Attributions against causes that are known: sets, methods, scores."""

from .run import DEFAULT_METHODS, AttributionBench, BenchRow, bench_attribution, measure
from .scores import MapScores, score_map, unmeasured_share
from .sets import SETS, BenchSet

__all__ = [
    "DEFAULT_METHODS",
    "SETS",
    "AttributionBench",
    "BenchRow",
    "BenchSet",
    "MapScores",
    "bench_attribution",
    "measure",
    "score_map",
    "unmeasured_share",
]
