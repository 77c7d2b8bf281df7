import torch
from torch.func import jvp

from clinode.sequence.coupling import CouplingMap


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def steep_map() -> CouplingMap:
    coupling = CouplingMap(6, 7, torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter.mul_(4)
    return coupling


def test_the_map_is_undone_by_its_inverse():
    coupling, z = steep_map(), 3 * drawn(50, 6)
    w = coupling(z)
    assert (w - z).abs().max() > 1
    torch.testing.assert_close(coupling.inverse(w), z, rtol=0, atol=1e-12)


def test_the_volume_of_a_coupling_is_that_of_its_scales():
    coupling, z = steep_map(), drawn(6)
    jacobian = torch.func.jacrev(coupling)(z)
    a, b = z.chunk(2)
    moved = coupling.first(a, b)
    scales = [
        torch.tanh(torch.tanh(layer.inward(told)) @ layer.scale.T).sum()
        for layer, told in ((coupling.first, b), (coupling.second, moved))
    ]
    torch.testing.assert_close(torch.logdet(jacobian), scales[0] + scales[1])


def test_the_derivative_along_a_direction_is_that_of_autograd():
    coupling, w, d_w = steep_map(), drawn(20, 6), drawn(20, 6).flip(0)
    expected = jvp(coupling.inverse, (w,), (d_w,))[1]
    torch.testing.assert_close(coupling.inverse_along(w, d_w), expected, rtol=0, atol=1e-12)
