"""Figures of every room, drawn with matplotlib; one file a room."""

from .attribution import ranking_figure
from .evaluation import calibration_figure
from .picture import data_uri, styled

__all__ = ["calibration_figure", "data_uri", "ranking_figure", "styled"]
