"""Rules for sums of products: matrices, vectors, einsum. What is summed must agree."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clinode.system import UnitError

from .rules import Held, bare, lift, product
from .terms import SUM, Table, Term


def matrix_product(
    table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict
) -> Held:
    """Units multiply, and what is summed must agree."""
    a, b = lift(table, args[0]), lift(table, args[1])
    if name == "__rmatmul__":
        a, b = b, a
    value = func(*bare(args), **bare(kwargs))
    return Held(value, _matrix_terms(table, a.terms, b.terms).expand(value.shape))


def linear(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """linear(x, weight, bias)."""
    x, weight = lift(table, args[0]), lift(table, args[1])
    bias = kwargs.get("bias", args[2] if len(args) > 2 else None)
    value = func(*bare(args), **bare(kwargs))
    rows = table.combined(weight.terms, x.terms.unsqueeze(-2), product)
    terms = table.mapped(table.merged(rows, rows.ndim - 1), _as_matrix_product)
    if bias is not None:
        terms = table.combined(terms, lift(table, bias).terms, _plus(table))
    return Held(value, terms.expand(value.shape))


def outer(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """outer(a, b)."""
    a, b = lift(table, args[0]), lift(table, args[1])
    terms = table.combined(a.terms.unsqueeze(-1), b.terms.unsqueeze(-2), product)
    return Held(func(*bare(args), **bare(kwargs)), terms)


def einsum(table: Table, name: str, func: Callable[..., Any], args: tuple, kwargs: dict) -> Held:
    """Any sum of products; without an ellipsis unless each operand has one unit."""
    operands = args[1] if isinstance(args[1], tuple | list) else args[1:]
    helds = [lift(table, operand) for operand in operands]
    value = func(args[0], *(held.value for held in helds))
    inputs, arrow, result = args[0].replace(" ", "").partition("->")
    if "." in inputs or not arrow:
        terms = torch.tensor(0)
        for k, held in enumerate(helds):
            alone = table.merged(held.terms.reshape(-1), 0)
            terms = alone if k == 0 else table.combined(terms, alone, product)
        return Held(value, table.mapped(terms, _as_matrix_product).expand(value.shape))
    letters = sorted(set(inputs.replace(",", "")))
    terms = None
    for held, axes in zip(helds, inputs.split(","), strict=True):
        aligned = _aligned(held.terms, axes, letters)
        terms = aligned if terms is None else table.combined(terms, aligned, product)
    if terms is None:
        raise UnitError("einsum without operands", where=table.where)
    for k in reversed([k for k, letter in enumerate(letters) if letter not in result]):
        terms = table.merged(terms, k)
    kept = [letter for letter in letters if letter in result]
    terms = terms.permute(*[kept.index(letter) for letter in result])
    return Held(value, table.mapped(terms, _as_matrix_product).expand(value.shape))


def _as_matrix_product(term: Term) -> Term:
    return term._replace(text=term.text.replace(" * ", " @ "))


def _plus(table: Table) -> Callable[[Term, Term], Term]:
    def rule(a: Term, b: Term) -> Term:
        table.check_agree(a, b)
        if a.unit is None or b.unit is None:
            return a if b.unit is None else b
        return Term(a.unit, f"{a.text} + {b.text}", SUM)

    return rule


def _matrix_terms(table: Table, a: Tensor, b: Tensor) -> Tensor:
    """Terms of a @ b, for vectors, matrices and batches of them."""
    is_row, is_column = a.ndim == 1, b.ndim == 1
    a = a.unsqueeze(0) if is_row else a
    b = b.unsqueeze(-1) if is_column else b
    products = table.combined(a.unsqueeze(-1), b.unsqueeze(-3), product)
    terms = table.mapped(table.merged(products, products.ndim - 2), _as_matrix_product)
    terms = terms.squeeze(-2) if is_row else terms
    return terms.squeeze(-1) if is_column else terms


def _aligned(terms: Tensor, axes: str, letters: list[str]) -> Tensor:
    """An operand of einsum with one axis a letter; a letter that comes twice is a diagonal."""
    for letter in set(axes):
        while axes.count(letter) > 1:
            first, second = axes.index(letter), axes.rindex(letter)
            terms = terms.diagonal(dim1=first, dim2=second)
            axes = axes[:first] + axes[first + 1 : second] + axes[second + 1 :] + letter
    order = [axes.index(letter) for letter in letters if letter in axes]
    index = tuple(slice(None) if letter in axes else None for letter in letters)
    return terms.permute(*order)[index]
