import torch

from clinode.dynamics.fixed_step import step_grid


def test_steps_end_at_every_output_time_and_breakpoint_and_are_never_too_long():
    generator = torch.Generator().manual_seed(1)
    for n_times, n_breaks, step in ((1, 3, 0.3), (2, 0, 0.1), (5, 7, 0.05), (3, 4, 10.0)):
        times = torch.rand(6, n_times, generator=generator).double().sort(dim=-1).values
        breaks = 2 * torch.rand(6, n_breaks, generator=generator).double().sort(dim=-1).values - 0.5
        grid = step_grid(times, breaks, step)
        for i in range(6):
            nodes = grid.nodes[i].tolist()
            inside = [b for b in breaks[i].tolist() if times[i, 0] < b < times[i, -1]]
            assert {*times[i].tolist(), *inside} <= set(nodes)
            assert (grid.nodes[i].diff() >= 0).all()
            assert (grid.nodes[i].diff() <= step * (1 + 1e-8)).all()
            assert grid.nodes[i][grid.counts[i]].tolist() == times[i].tolist()


def test_a_trajectory_takes_its_own_steps_whatever_its_batch_mates_need():
    times = torch.tensor([[0.0, 1.0], [0.0, 4.0]], dtype=torch.float64)
    none = torch.zeros(0, dtype=torch.float64)
    both = step_grid(times, none, 0.25)
    alone = step_grid(times[0], none, 0.25)
    assert both.counts.tolist() == [[0, 4], [0, 16]]
    assert both.nodes[0, :5].tolist() == alone.nodes.tolist()
    assert (both.nodes[0, 4:] == 1.0).all()


def test_a_decimal_fraction_of_an_interval_gives_a_whole_number_of_steps():
    times = torch.tensor([0.0, 0.3, 2.1], dtype=torch.float64)
    grid = step_grid(times, torch.zeros(0, dtype=torch.float64), 0.1)
    assert grid.counts.tolist() == [0, 3, 21]
