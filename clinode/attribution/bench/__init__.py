"""Attributions against causes that are known: sets, methods, scores."""

from .row import BenchRow
from .run import DEFAULT_METHODS, AttributionBench, bench_attribution, measure
from .scores import MapScores, score_map, unmeasured_share
from .sets import SETS, BenchSet
from .through import FittedFamily

__all__ = [
    "DEFAULT_METHODS",
    "SETS",
    "AttributionBench",
    "BenchRow",
    "BenchSet",
    "FittedFamily",
    "MapScores",
    "bench_attribution",
    "measure",
    "score_map",
    "unmeasured_share",
]
