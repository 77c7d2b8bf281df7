import numpy as np
import torch

from clinode.sequence.course import course, passed_gap, passed_row


def visited(batch, way, subject):
    """Rows of one subject in the order in which they are read, and hours of each visit."""
    rounds = way.row.split(way.sizes)
    gaps = way.gap.split(way.sizes)
    place = [
        int((batch.row_subject[part] == subject).nonzero()[0])
        for part in rounds
        if (batch.row_subject[part] == subject).any()
    ]
    assert len(set(place)) == 1  # a record keeps its place in every round
    here = place[0]
    n = len(place)
    return [part[here].item() for part in rounds[:n]], [part[here].item() for part in gaps[:n]]


def test_in_one_step_a_gap_the_rows_are_the_visits(classified):
    batch = classified.batch(np.arange(12), torch.float64)
    way = course(batch, torch.ones(batch.n_rows, dtype=torch.long), reverse=False)
    assert way.sizes == batch.sizes
    assert torch.equal(way.row, torch.arange(batch.n_rows))
    assert way.is_arrival.all()
    assert all(way.arrives)


def test_every_record_is_passed_in_its_own_steps(classified):
    batch = classified.batch(np.arange(12), torch.float64)
    generator = torch.Generator().manual_seed(0)
    n_steps = torch.randint(1, 5, (batch.n_rows,), generator=generator)
    for reverse in (False, True):
        way = course(batch, n_steps, reverse=reverse)
        assert sorted(way.sizes, reverse=True) == way.sizes
        assert sum(way.sizes) == n_steps.sum()
        for subject in range(12):
            rows = (batch.row_subject == subject).nonzero()[:, 0].tolist()
            rows = rows[::-1] if reverse else rows
            shown, hours = visited(batch, way, subject)
            assert shown == [row for row in rows for _ in range(n_steps[row])]
            span = batch.time[rows[-1]] - batch.time[rows[0]]
            assert abs(sum(hours) - abs(span.item())) < 1e-9
        assert torch.equal(way.row[way.arrival], torch.arange(batch.n_rows))
        assert way.is_arrival.sum() == batch.n_rows
        assert way.is_arrival[way.arrival].all()
        is_read = [part.any().item() for part in way.is_arrival.split(way.sizes)]
        assert way.arrives == is_read


def test_against_time_a_row_is_reached_over_the_gap_behind_it(classified):
    batch = classified.batch(np.arange(12), torch.float64)
    gap, passed = passed_gap(batch, reverse=True), passed_row(batch, reverse=True)
    for row in range(batch.n_rows):
        subject = batch.row_subject[row]
        later = (batch.row_subject == subject) & (batch.time > batch.time[row])
        if later.any():
            following = later.nonzero()[:, 0].min()
            assert passed[row] == following
            assert abs(gap[row] - (batch.time[following] - batch.time[row])) < 1e-12
        else:
            assert passed[row] == row
            assert gap[row] == 0
