import numpy as np
import torch

from clinode.sequence.course import course, pack


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
    way = course(batch, torch.ones(batch.n_rows, dtype=torch.long))
    assert way.sizes == batch.sizes
    assert torch.equal(way.row, torch.arange(batch.n_rows))
    assert way.is_arrival.all()
    assert all(way.arrives)


def test_every_record_is_passed_in_its_own_steps(classified):
    batch = classified.batch(np.arange(12), torch.float64)
    generator = torch.Generator().manual_seed(0)
    n_steps = torch.randint(1, 5, (batch.n_rows,), generator=generator)
    way = course(batch, n_steps)
    assert sorted(way.sizes, reverse=True) == way.sizes
    assert sum(way.sizes) == n_steps.sum()
    for subject in range(12):
        rows = (batch.row_subject == subject).nonzero()[:, 0].tolist()
        shown, hours = visited(batch, way, subject)
        assert shown == [row for row in rows for _ in range(n_steps[row])]
        span = batch.time[rows[-1]] - batch.time[rows[0]]
        assert abs(sum(hours) - abs(span.item())) < 1e-9
    assert torch.equal(way.row[way.arrival], torch.arange(batch.n_rows))
    assert way.is_arrival.sum() == batch.n_rows
    assert way.is_arrival[way.arrival].all()
    is_read = [part.any().item() for part in way.is_arrival.split(way.sizes)]
    assert way.arrives == is_read


def test_items_are_visited_one_after_the_other_by_each_owner():
    generator = np.random.default_rng(0)
    n_items = generator.integers(1, 5, 7)
    owner = torch.from_numpy(np.repeat(np.arange(7), n_items))
    n_visits = torch.from_numpy(generator.integers(1, 6, len(owner)))
    packed = pack(owner, n_visits, 7)
    assert sorted(packed.sizes, reverse=True) == packed.sizes
    begins = np.cumsum([0, *packed.sizes])
    for one in range(7):
        mine = (owner == one).nonzero()[:, 0].tolist()
        expected = [(item, k) for item in mine for k in range(n_visits[item])]
        lane = packed.lane[mine[0]].item()
        visits = [begins[k] + lane for k in range(len(expected))]
        assert [(packed.item[v].item(), packed.nth[v].item()) for v in visits] == expected
        item, nth = (torch.tensor(part) for part in zip(*expected[1:], strict=True))
        assert packed.visit_before(item, nth).tolist() == visits[:-1]
        assert all(packed.is_last[v].item() == (k == n_visits[i] - 1)
                   for v, (i, k) in zip(visits, expected, strict=True))  # fmt: skip
