"""What is known of every element of a tensor while units are checked: its unit and its expression.

A tensor of terms holds one number an element, the row of the term in a table. Few terms stand in a
tensor, so rules are asked once for each that occurs.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from clinode.system import ONE, Quantity, Unit, UnitError, parse_unit

ATOM, PRODUCT, SUM = 3, 2, 1  # how tightly an expression holds together
LONGEST = 160  # characters of an expression before its middle is left out


class Term(NamedTuple):
    """One element: its unit, None where it fits everywhere (zero, a learned weight), its text."""

    unit: Unit | None
    text: str
    rank: int = ATOM

    @property
    def factor_text(self) -> str:
        """In parentheses where a product or power would tear it apart."""
        return self.text if self.rank >= PRODUCT else f"({self.text})"

    @property
    def atom_text(self) -> str:
        """In parentheses unless it is a single name, number or call."""
        return self.text if self.rank == ATOM else f"({self.text})"


ANYTHING = Term(None, "0")


class Table:
    """All terms met while one system is checked.

    Attributes:
        where: What is being evaluated, for errors.
    """

    def __init__(self):
        self.where = ""
        self._terms: list[Term] = []
        self._rows: dict[Term, int] = {}
        self.row(ANYTHING)  # row 0, so that padding with zeros is right

    def __getitem__(self, row: int) -> Term:
        return self._terms[row]

    def row(self, term: Term) -> int:
        """Where a term stands, entered if it is new."""
        if len(term.text) > LONGEST:
            half = LONGEST // 2 - 3
            term = term._replace(text=f"{term.text[:half]} ... {term.text[-half:]}")
        if term not in self._rows:
            self._rows[term] = len(self._terms)
            self._terms.append(term)
        return self._rows[term]

    def full(self, shape: torch.Size, term: Term) -> Tensor:
        """One term everywhere."""
        return torch.tensor(self.row(term)).expand(shape)

    def of_quantities(self, quantities: Iterable[Quantity], per: Unit = ONE) -> Tensor:
        """(value,): the terms of named quantities on the last axis."""
        rows = [
            self.row(Term(self.parse(f"'{q.name}'", q.unit) / per, q.name))
            for q in quantities
            for _ in q.names
        ]
        return torch.tensor(rows, dtype=torch.int64)

    def parse(self, what: str, text: str) -> Unit:
        """The unit of something named.

        Raises:
            UnitError: Its text is no unit.
        """
        try:
            return parse_unit(text)
        except UnitError as error:
            raise UnitError(f"{what}: {error.problem}", where=self.where, fix=error.fix) from error

    def of_numbers(self, values: Tensor, text: str = "") -> Tensor:
        """The terms of bare numbers: without dimension; zero and infinity fit everywhere."""
        values = values.detach()
        if not text:
            same = values.numel() > 0 and bool((values == values.flatten()[0]).all())
            text = f"{float(values.flatten()[0]):g}" if same else "numbers"
        fits = (values == 0) | ~torch.isfinite(values)
        negative = text.startswith("-")
        return torch.where(fits, 0, self.row(Term(ONE, text, SUM if negative else ATOM)))

    def mapped(self, terms: Tensor, rule: Callable[[Term], Term]) -> Tensor:
        """A rule for one term, applied to each element."""
        rows, places = torch.unique(terms, return_inverse=True)
        new = torch.tensor([self.row(rule(self[int(row)])) for row in rows], dtype=torch.int64)
        return new[places] if len(new) else terms

    def combined(self, a: Tensor, b: Tensor, rule: Callable[[Term, Term], Term]) -> Tensor:
        """A rule for two terms, applied to each pair of elements, broadcast."""
        a, b = torch.broadcast_tensors(a, b)
        stride = len(self._terms)
        pairs, places = torch.unique(a * stride + b, return_inverse=True)
        made = [rule(self[int(pair) // stride], self[int(pair) % stride]) for pair in pairs]
        new = torch.tensor([self.row(term) for term in made], dtype=torch.int64)
        return new[places] if len(new) else a

    def merged(self, terms: Tensor, dim: int) -> Tensor:
        """Terms that are added up along an axis, which must agree; the axis goes."""
        while terms.shape[dim] > 1:
            half = terms.shape[dim] // 2
            low, high = terms.narrow(dim, 0, half), terms.narrow(dim, half, half)
            rest = terms.narrow(dim, 2 * half, terms.shape[dim] - 2 * half)
            terms = torch.cat([self.combined(low, high, self.one_of), rest], dim=dim)
        if terms.shape[dim] == 0:
            return torch.zeros_like(terms.sum(dim))
        return terms.squeeze(dim)

    def one_of(self, a: Term, b: Term) -> Term:
        """What two elements that agree are together."""
        self.check_agree(a, b)
        if a.unit is None or b.unit is None:
            return a if b.unit is None else b
        if a.text == b.text:
            return a
        return Term(a.unit, f"{a.text.removesuffix(', ...')}, ...", SUM)

    def check_agree(self, a: Term, b: Term) -> None:
        """Raise UnitError where two terms cannot be added or compared."""
        if a.unit is None or b.unit is None or a.unit.agrees_with(b.unit):
            return
        raise UnitError(
            f"`{b.text}` is in {b.unit} against `{a.text}` in {a.unit}: {_gap(b.unit, a.unit)}",
            where=self.where,
            fix=FIX,
        )

    def check_plain(self, term: Term, operation: str) -> None:
        """Raise UnitError where something with a dimension stands in a function of numbers."""
        if term.unit is None or term.unit.agrees_with(ONE):
            return
        wrong = "has a dimension"
        if not term.unit.dimension:
            wrong = f"is {math.exp(term.unit.log_factor):.6g} of the number 1"
        raise UnitError(
            f"`{term.text}` in {operation}(...) {wrong}: it is in {term.unit}",
            where=self.where,
            fix="divide it by a constant with its unit",
        )

    def check_all_plain(self, terms: Tensor, operation: str) -> None:
        """`check_plain` for every element."""
        for row in torch.unique(terms):
            self.check_plain(self[int(row)], operation)

    def check_expected(self, terms: Tensor, expected: Tensor, what: str) -> None:
        """Raise UnitError where elements (..., value) are not in the units expected, (value,)."""
        for place in range(len(expected)):
            wanted = self[int(expected[place])]
            for row in torch.unique(terms[..., place]):
                term = self[int(row)]
                if term.unit is None or wanted.unit is None or term.unit.agrees_with(wanted.unit):
                    continue
                raise UnitError(
                    f"{what.format(wanted.text)} must be in {wanted.unit}, and `{term.text}` is in "
                    f"{term.unit}: {_gap(term.unit, wanted.unit)}",
                    where=self.where,
                    fix=FIX,
                )


FIX = "mend the unit of a constant named there, or put in the factor that is missing"


def _gap(unit: Unit, wanted: Unit) -> str:
    if not unit.has_dimension_of(wanted):
        return "another dimension"
    return f"a factor of {unit.factor_to(wanted):.6g} is missing"
