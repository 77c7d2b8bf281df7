import pytest
import torch

from clinode.system import ONE, UnitError, parse_unit
from clinode.units.terms import Table, Term
from clinode.units.tracked import terms_of, track


@pytest.fixture
def held():
    """A voltage V, a conductance g, a number n and a matrix W of numbers, of three values each."""
    table = Table()

    def tracked(name, unit, *shape):
        value = torch.rand(*shape, dtype=torch.float64) + 0.5
        return track(value, table.full(value.shape, Term(unit, name)), table)

    made = {name: tracked(name, parse_unit(unit), 3) for name, unit in (("V", "mV"), ("g", "nS"))}
    return made | {"n": tracked("n", ONE, 3), "W": tracked("W", ONE, 2, 3), "table": table}


AGREE = [
    (lambda V, g, n, W: V + 2 * V - V / 3, "mV"),
    (lambda V, g, n, W: g * V, "nS*mV"),
    (lambda V, g, n, W: V.mul(g) / g, "mV"),
    (lambda V, g, n, W: 1 / g, "1/nS"),
    (lambda V, g, n, W: V**2, "mV^2"),
    (lambda V, g, n, W: torch.sqrt(V * V), "mV"),
    (lambda V, g, n, W: V.square().rsqrt(), "1/mV"),
    (lambda V, g, n, W: 2.0**n + n**n, "1"),
    (lambda V, g, n, W: torch.exp(V / V) + n, "1"),
    (lambda V, g, n, W: torch.where(V > 0, V, 0.0), "mV"),
    (lambda V, g, n, W: V.clamp(min=0) + torch.relu(V) + V.abs() - V.neg(), "mV"),
    (lambda V, g, n, W: torch.maximum(V, torch.zeros_like(V)), "mV"),
    (lambda V, g, n, W: V.masked_fill(n > 1, 0.0), "mV"),
    (lambda V, g, n, W: torch.cat([V, V[:1]]).sum(), "mV"),
    (lambda V, g, n, W: torch.stack([V, V]).mean(0, keepdim=True), "mV"),
    (lambda V, g, n, W: W @ V, "mV"),
    (lambda V, g, n, W: torch.nn.functional.linear(V, W, V[:2]), "mV"),
    (lambda V, g, n, W: torch.einsum("ij,j,j->i", W, V, g), "mV*nS"),
    (lambda V, g, n, W: torch.einsum("...j,j->...", W, V), "mV"),
    (lambda V, g, n, W: torch.outer(V, g).diagonal(), "mV*nS"),
    (lambda V, g, n, W: V.expand(2, 3).reshape(6).view(3, 2).T.flip(0)[..., -1:], "mV"),
    (lambda V, g, n, W: V.amax(dim=-1) - V.min(), "mV"),
    (lambda V, g, n, W: V.max(dim=0).values, "mV"),
    (lambda V, g, n, W: V.var(), "mV^2"),
    (lambda V, g, n, W: torch.softmax(n, -1) * torch.sign(V), "1"),
    (lambda V, g, n, W: torch.atan2(V, V) + torch.special.expm1(n), "1"),
    (lambda V, g, n, W: torch.lerp(V, V, 0.5), "mV"),
    (lambda V, g, n, W: torch.cumsum(V, dim=0).diff(), "mV"),
    (lambda V, g, n, W: V.new_zeros(3) + torch.zeros(3).double() + V, "mV"),
    (lambda V, g, n, W: torch.nn.functional.pad(V, (1, 1)), "mV"),
    (lambda V, g, n, W: torch.diag_embed(V) @ n, "mV"),
    (lambda V, g, n, W: V.roll(1, -1).gather(0, torch.tensor([0, 2])), "mV"),
    (lambda V, g, n, W: V * float(n.sum()) + V.double(), "mV"),
    (lambda V, g, n, W: sum(torch.split(torch.cat([V, V]), [3, 3])), "mV"),
]


@pytest.mark.parametrize(("function", "unit"), AGREE)
def test_numbers_are_those_of_torch_and_the_unit_is_that_of_the_expression(held, function, unit):
    table = held.pop("table")
    result = function(**held)
    bare = function(**{name: value.as_subclass(torch.Tensor) for name, value in held.items()})
    assert torch.equal(torch.Tensor(result.as_subclass(torch.Tensor)), torch.Tensor(bare))
    terms = [table[int(row)] for row in terms_of(result, table).unique()]
    found = {str(term.unit) for term in terms if term.unit is not None}
    assert len(found) == 1
    assert parse_unit(found.pop()).agrees_with(parse_unit(unit))


REFUSED = [
    (lambda V, g, n, W: V + g, r"`g` is in nS against `V` in mV"),
    (lambda V, g, n, W: V - 1, r"`1` is in 1 against `V` in mV"),
    (lambda V, g, n, W: 1 - V, r"`V`|`1`"),
    (lambda V, g, n, W: n + V / g, r"`V / g` is in mV/nS against `n`"),
    (lambda V, g, n, W: torch.tanh(V * n), r"`V \* n` in tanh"),
    (lambda V, g, n, W: torch.log(V), r"`V` in log"),
    (lambda V, g, n, W: n**V, "the exponent"),
    (lambda V, g, n, W: V**n, "its exponents differ"),
    (lambda V, g, n, W: V > g, "`g` is in nS"),
    (lambda V, g, n, W: V.clamp(max=1.0), "`1` is in 1"),
    (lambda V, g, n, W: torch.where(n > 0, V, g), "`g` is in nS"),
    (lambda V, g, n, W: torch.maximum(V, n), "`n` is in 1"),
    (lambda V, g, n, W: torch.cat([V, g]).sum(), "`g` is in nS"),
    (lambda V, g, n, W: torch.stack([V, g]).cumsum(0), "`g` is in nS"),
    (lambda V, g, n, W: torch.cat([V[:1], g[:2]]) @ n, r"`g \* n` is in nS"),
    (lambda V, g, n, W: torch.nn.functional.linear(V, W, n[:2]), "`n` is in 1"),
    (lambda V, g, n, W: torch.einsum("i,i->", torch.cat([V[:1], g[:2]]), n), r"`g \* n`"),
    (lambda V, g, n, W: V.masked_fill(n > 1, 5.0), "`5` is in 1"),
    (lambda V, g, n, W: V + torch.ones(3), "`1` is in 1"),
    (lambda V, g, n, W: torch.lerp(V, V, V), "`V` in lerp"),
    (lambda V, g, n, W: torch.nn.functional.pad(V, (1, 1), value=2.0), "pad with 2"),
    (lambda V, g, n, W: torch.linalg.qr(W), "torch's 'linalg_qr' is an operation"),
    (lambda V, g, n, W: float(V[0]), "`V` in __float__"),
    (lambda V, g, n, W: torch.add(V, V, alpha=g[0]), "`g` in add|is an operation|alpha"),
]


@pytest.mark.parametrize(("function", "words"), REFUSED)
def test_what_does_not_agree_is_refused_with_both_terms(held, function, words):
    held.pop("table")
    with pytest.raises(UnitError, match=words):
        function(**held)


def test_an_element_that_is_set_in_place_brings_its_unit(held):
    table, V, g = held["table"], held["V"], held["g"]
    both = torch.zeros(6, dtype=torch.float64)
    tracked = track(both, table.of_numbers(both), table)
    tracked[:3] = V
    tracked[3:] = g
    tracked[:3].sum()
    with pytest.raises(UnitError, match="`g` is in nS against `V` in mV"):
        tracked.sum()


def test_a_long_expression_is_shown_by_its_ends(held):
    V, long = held["V"], held["V"]
    for _ in range(100):
        long = long + V * held["n"]
    with pytest.raises(UnitError, match=r"`V \+ V \* n .* \.\.\. .*` in mV") as refusal:
        torch.add(long, held["g"])
    assert len(refusal.value.problem) < 400
