import numpy as np
import pandas as pd

from clinode.attribution import KindAttributions
from clinode.figures import kinds_figure


def test_kinds_are_drawn_with_their_shares_and_units():
    generator = np.random.default_rng(0)
    split = pd.DataFrame(
        generator.normal(size=(40, 3)) * [2, 1, 0.5], columns=["values", "ordering", "timing"]
    )
    table = split.assign(subject_id=np.arange(40), output=split.sum(axis=1) - 2, base=-2.0)
    found = KindAttributions(
        table=table, baseline="cohort_mean", outcome="died", scale="log odds", n_draws=4
    )
    figure = kinds_figure(found)
    left, right = figure.axes
    widths = [bar.get_width() for bar in left.patches]
    assert abs(sum(widths) - 100) < 1e-9
    assert widths == sorted(widths, reverse=True)
    assert next(iter(left.get_yticklabels())).get_text() == "what was measured"
    assert "%" in left.get_xlabel()
    assert right.get_ylabel() == "contribution (log odds)"
    assert len(right.lines) == 4
    figure.canvas.draw()
