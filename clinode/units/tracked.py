"""A tensor that knows the unit of each of its elements and refuses what does not fit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .operations import rule_for
from .rules import Held
from .terms import Table


class Tracked(Tensor):
    """Numbers with terms, through every operation of torch; made by `track`."""

    terms: Tensor
    table: Table

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """By the rule of the operation."""
        kwargs = kwargs or {}
        table = _table_of((args, kwargs))
        name = _name(func)
        with torch._C.DisableTorchFunctionSubclass():
            rule = rule_for(table, name)
            result = rule(table, name, func, _opened(args), _opened(kwargs))
            if name == "__setitem__":
                args[0].terms = result.terms
                return None
            if name.endswith("_") and not name.startswith("__") and isinstance(result, Held):
                args[0].terms = result.terms
                return args[0]
            return _closed(result, table)


def track(value: Tensor, terms: Tensor, table: Table) -> Tracked:
    """A tracked tensor of these numbers and terms."""
    with torch._C.DisableTorchFunctionSubclass():
        tracked = torch.Tensor._make_subclass(Tracked, value.detach())
        tracked.terms, tracked.table = terms.expand(value.shape), table
    return tracked


def terms_of(tensor: Tensor, table: Table) -> Tensor:
    """The terms of a result, which may have lost them where it is all numbers."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.terms if isinstance(tensor, Tracked) else table.of_numbers(tensor)


def _name(func: Callable[..., Any]) -> str:
    """The operation's name; of an attribute, the attribute's."""
    name = func.__name__
    return func.__self__.__name__ if name == "__get__" else name  # pyright: ignore[reportFunctionMemberAccess]


def _opened(tree: Any) -> Any:
    if isinstance(tree, Tracked):
        return Held(tree.as_subclass(Tensor), tree.terms)
    if isinstance(tree, dict):
        return {key: _opened(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list) and not isinstance(tree, torch.Size):
        return type(tree)(_opened(item) for item in tree)
    return tree


def _closed(tree: Any, table: Table) -> Any:
    if isinstance(tree, Held):
        return track(tree.value, tree.terms, table)
    if isinstance(tree, tuple) and any(isinstance(item, Held) for item in tree):
        made = [_closed(item, table) for item in tree]
        return tuple(made) if type(tree) is tuple else type(tree)(made)
    return tree


def _table_of(tree: Any) -> Table:
    found = _find(tree)
    if found is None:
        raise RuntimeError("no tracked tensor among the arguments")
    return found


def _find(tree: Any) -> Table | None:
    if isinstance(tree, Tracked):
        return tree.table
    items = tree.values() if isinstance(tree, dict) else tree
    if isinstance(tree, dict | tuple | list):
        for item in items:
            found = _find(item)
            if found is not None:
                return found
    return None
