"""What an operation does to units, by kind: elements move, agree, multiply, lose their unit.

A rule sees each tracked tensor as `Held`, its numbers and its terms, and gives back the same. The
numbers are always those of torch itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from clinode.system import ONE, UnitError

from .terms import ANYTHING, ATOM, PRODUCT, SUM, Table, Term

Rule = Callable[[Table, str, Callable[..., Any], tuple, dict], Any]


@dataclass(frozen=True)
class Held:
    """Numbers, and the term of each: tensors of one shape."""

    value: Tensor
    terms: Tensor


def bare(tree: Any) -> Any:
    """The numbers alone."""
    return _replaced(tree, lambda held: held.value)


def lift(table: Table, thing: Any) -> Held:
    """A number or a plain tensor as numbers without dimension."""
    if isinstance(thing, Held):
        return thing
    value = thing if isinstance(thing, Tensor) else torch.tensor(thing)
    return Held(value, table.of_numbers(value))


def _replaced(tree: Any, change: Callable[[Held], Any]) -> Any:
    if isinstance(tree, Held):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _replaced(item, change) for key, item in tree.items()}
    if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
        return type(tree)(_replaced(item, change) for item in tree)
    return tree


def _paired(values: Any, terms: Any) -> Any:
    """Results of the same operation on numbers and on terms, together again."""
    if isinstance(values, Tensor):
        return Held(values, terms)
    return tuple(Held(value, term) for value, term in zip(values, terms, strict=True))


# Rules


def plain(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """No unit goes in or comes out: shapes, dtypes, places, truth values."""
    return func(*bare(args), **bare(kwargs))


def shape(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Elements move and keep their terms; where zeros fill in, they fit everywhere."""
    first, rest = args[0], bare(args[1:])
    held = lift(table, first)
    kwargs = bare(kwargs)
    return _paired(func(held.value, *rest, **kwargs), func(held.terms, *rest, **kwargs))


def gathered(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Several tensors become one, or move together."""
    parts = args[0] if isinstance(args[0], tuple | list) else args
    rest = args[1:] if isinstance(args[0], tuple | list) else ()
    helds = [lift(table, part) for part in parts]

    def together(each: list[Tensor]) -> Any:
        given = (each,) if isinstance(args[0], tuple | list) else each
        return func(*given, *rest, **kwargs)

    return _paired(together([h.value for h in helds]), together([h.terms for h in helds]))


def same_numbers(
    table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict
) -> Any:
    """A conversion: the same elements, the same terms."""
    value = func(*bare(args), **bare(kwargs))
    return Held(value, lift(table, args[0]).terms)


def zeros(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """New zeros fit everywhere."""
    value = func(*bare(args), **bare(kwargs))
    return Held(value, table.full(value.shape, ANYTHING))


def literals(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """New numbers have no dimension."""
    return lift(table, func(*bare(args), **bare(kwargs)))


def unary(text: str, rank: int = ATOM) -> Rule:
    """The unit stays, the expression becomes `text.format(...)`."""

    def rule(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
        held = lift(table, args[0])

        def one(term: Term) -> Term:
            inner = term.atom_text if rank == SUM else term.text
            return term if term.unit is None else Term(term.unit, text.format(inner), rank)

        value = func(held.value, *bare(args[1:]), **bare(kwargs))
        return Held(value, table.mapped(held.terms, one))

    return rule


def numbers_only(
    table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict
) -> Held:
    """A function of numbers without dimension, such as exp."""
    value = func(*bare(args), **bare(kwargs))
    for held in _leaves((args, kwargs)):
        table.check_all_plain(held.terms, name)
    first = lift(table, args[0]).terms
    if first.shape != value.shape:
        return Held(value, table.full(value.shape, Term(ONE, f"{name}(...)")))
    return Held(value, table.mapped(first, lambda term: Term(ONE, f"{name}({term.text})")))


def compare(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """Both sides must agree; the answer is a truth value."""
    a, b = lift(table, args[0]), lift(table, args[1])
    table.combined(a.terms, b.terms, table.one_of)
    return func(*bare(args), **bare(kwargs))


def add(text: str, rank: int = SUM) -> Rule:
    """Both sides must agree, and so does what comes out."""

    def rule(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
        _check_number(table, name, kwargs.get("alpha", 1))
        a, b = (lift(table, arg) for arg in args[:2])

        def one(x: Term, y: Term) -> Term:
            left, right = (x, y) if not name.startswith(("__r", "rsub")) else (y, x)
            table.check_agree(x, y)
            if rank == SUM and (left.unit is None or right.unit is None):
                return left if right.unit is None else _negated(right, text)
            unit = x.unit if x.unit is not None else y.unit
            second = right.factor_text if rank == SUM and "-" in text else right.text
            return Term(unit, text.format(left.text, second), rank)

        return Held(func(*bare(args), **bare(kwargs)), table.combined(a.terms, b.terms, one))

    return rule


def multiply(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """Units multiply."""
    a, b = (lift(table, arg) for arg in args[:2])
    flip = name == "__rmul__"
    terms = table.combined(b.terms, a.terms, product) if flip else None
    terms = table.combined(a.terms, b.terms, product) if terms is None else terms
    return Held(func(*bare(args), **bare(kwargs)), terms)


def divide(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """Units divide."""
    a, b = (lift(table, arg) for arg in args[:2])
    if name in ("__rtruediv__", "__rdiv__"):
        a, b = b, a
    return Held(func(*bare(args), **bare(kwargs)), table.combined(a.terms, b.terms, quotient))


def product(a: Term, b: Term) -> Term:
    """a * b."""
    if a.unit is None or b.unit is None:
        return ANYTHING
    return Term(a.unit * b.unit, f"{a.factor_text} * {b.factor_text}", PRODUCT)


def quotient(a: Term, b: Term) -> Term:
    """a / b."""
    if a.unit is None or b.unit is None:
        return ANYTHING
    return Term(a.unit / b.unit, f"{a.factor_text} / {b.atom_text}", PRODUCT)


def power(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """A power: its exponent has no dimension, and is one number where the basis has one."""
    basis, exponent = lift(table, args[0]), lift(table, args[1])
    if name == "__rpow__":
        basis, exponent = exponent, basis
    table.check_all_plain(exponent.terms, "the exponent")
    value = func(*bare(args), **bare(kwargs))
    rows = [table[int(row)] for row in torch.unique(basis.terms)]
    if all(term.unit is None or term.unit.agrees_with(ONE) for term in rows):
        power_of_one = table.combined(
            basis.terms, exponent.terms, lambda a, b: Term(ONE, f"{a.atom_text}**{b.atom_text}")
        )
        return Held(value, power_of_one.expand(value.shape))
    flat = exponent.value.detach().flatten()
    if not flat.numel() or not bool((flat == flat[0]).all()):
        raise UnitError(
            f"`{rows[0].text}` has a dimension, and its exponents differ",
            where=table.where,
            fix="divide it by a constant with its unit",
        )
    terms = table.mapped(basis.terms, lambda term: _to_power(term, float(flat[0])))
    return Held(value, terms.expand(value.shape))


def fixed_power(exponent: float) -> Rule:
    """sqrt, square, reciprocal."""

    def rule(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
        held = lift(table, args[0])

        def one(term: Term) -> Term:
            raised = _to_power(term, exponent)
            return raised if term.unit is None else raised._replace(text=f"{name}({term.text})")

        return Held(func(*bare(args), **bare(kwargs)), table.mapped(held.terms, one))

    return rule


def reduce(exponent: float = 1.0) -> Rule:
    """Elements along axes, which must agree, become one; its unit to a power (2 for a variance)."""

    def rule(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        held = lift(table, args[0])
        if name in ("max", "min") and len(args) > 1 and isinstance(args[1], Held | Tensor):
            return add(name + "({}, {})", ATOM)(table, name, func, args, kwargs)
        result = func(*bare(args), **bare(kwargs))
        value = result if isinstance(result, Tensor) else result[0]
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
        dims = range(held.terms.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
        terms = held.terms
        for dim in sorted((d % terms.ndim for d in dims), reverse=True):
            terms = table.merged(terms, dim)
            terms = terms.unsqueeze(dim) if keep else terms

        def one(term: Term) -> Term:
            raised = _to_power(term, exponent)
            return raised if term.unit is None else Term(raised.unit, f"{name}({term.text})")

        made = Held(value, table.mapped(terms, one))
        return made if isinstance(result, Tensor) else type(result)((made, result[1]))

    return rule


def running(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """cumsum: elements along an axis must agree."""
    held = lift(table, args[0])
    dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    table.merged(held.terms, dim % held.terms.ndim)
    return unary(name + "({})")(table, name, func, args, kwargs)


def difference(
    table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict
) -> Held:
    """diff: neighbours must agree, and the result has fewer."""
    held = lift(table, args[0])
    dim = kwargs.get("dim", -1) % held.terms.ndim
    table.merged(held.terms, dim)
    value = func(*bare(args), **bare(kwargs))
    return Held(value, held.terms.narrow(dim, 0, value.shape[dim]))


def bounded(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """clamp: bounds agree with what they bound."""
    held = lift(table, args[0])
    terms = held.terms
    for bound in (*args[1:], *kwargs.values()):
        if bound is not None:
            terms = table.combined(terms, lift(table, bound).terms, _first_of(table))
    terms = table.mapped(terms, lambda t: t._replace(text=f"{name}({t.text})", rank=ATOM))
    return Held(func(*bare(args), **bare(kwargs)), terms)


def choose(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """where: both branches agree, as either may be taken."""
    if len(args) == 1:
        return func(*bare(args))
    condition, a, b = bare(args[0]), lift(table, args[1]), lift(table, args[2])
    terms = table.combined(a.terms, b.terms, _either(table))
    value = func(condition, *bare(args[1:]))
    return Held(value, terms.expand(value.shape))


def filled(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """masked_fill."""
    held, fill = lift(table, args[0]), lift(table, args[2])
    value = func(*bare(args))
    terms = table.combined(held.terms, fill.terms, _either(table))
    return Held(value, terms.expand(value.shape))


def padded(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """pad with zeros, or by what is there."""
    filling = kwargs.get("value", args[3] if len(args) > 3 else None)
    if filling:
        raise UnitError(f"pad with {filling}: a number without unit", where=table.where)
    return shape(table, name, func, args, kwargs)


def angle(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """atan2: of two that agree; the result has no dimension."""
    held = add(name + "({}, {})", ATOM)(table, name, func, args, kwargs)
    return Held(held.value, table.mapped(held.terms, lambda term: Term(ONE, term.text)))


def sign(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """The unit goes."""
    value = func(*bare(args), **bare(kwargs))
    terms = lift(table, args[0]).terms.expand(value.shape)
    return Held(value, table.mapped(terms, lambda term: Term(ONE, f"{name}({term.text})")))


def number(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """To a Python number, which has no unit."""
    table.check_all_plain(lift(table, args[0]).terms, name)
    return func(*bare(args), **bare(kwargs))


def interpolate(
    table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict
) -> Held:
    """lerp(a, b, weight): a and b agree, the weight is a number."""
    _check_number(table, name, args[2])
    return add(name + "({}, {})", ATOM)(
        table, name, lambda a, b: func(a, b, bare(args[2])), args[:2], kwargs
    )


def assign(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """x[index] = value, in place."""
    held, index, new = args[0], bare(args[1]), lift(table, args[2])
    func(held.value, index, new.value)
    terms = held.terms.clone()
    terms[index] = new.terms
    return Held(held.value, terms)


# What rules are made of


def _leaves(tree: Any) -> Iterable[Held]:
    if isinstance(tree, Held):
        yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _leaves(item)
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _leaves(item)


def _to_power(term: Term, exponent: float) -> Term:
    if term.unit is None or exponent == 1.0:
        return term
    return Term(term.unit ** Fraction(exponent), f"{term.atom_text}**{exponent:g}")


def _negated(term: Term, text: str) -> Term:
    """What is left of 0 - x, or of 0 + x."""
    return Term(term.unit, f"-{term.atom_text}", SUM) if "-" in text else term


def _either(table: Table) -> Callable[[Term, Term], Term]:
    def rule(a: Term, b: Term) -> Term:
        table.check_agree(a, b)
        if a.unit is None or b.unit is None or a.text == b.text:
            return a if b.unit is None or a.text == b.text else b
        return Term(a.unit, f"where(..., {a.text}, {b.text})")

    return rule


def _first_of(table: Table) -> Callable[[Term, Term], Term]:
    def rule(a: Term, b: Term) -> Term:
        table.check_agree(a, b)
        return b if a.unit is None else a

    return rule


def _check_number(table: Table, name: str, thing: Any) -> None:
    if isinstance(thing, Held):
        table.check_all_plain(thing.terms, name)
