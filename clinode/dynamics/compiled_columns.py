"""A traced function again, with states of a few components taken apart.

A field that was written by hand splits its state, computes with the parts and joins them. Over a
batch in rows the compiler would store and load every join, a few numbers at a time. Here a value
(row, state) that was joined stays a collection of its columns, operations act on each, and slices
give back what was joined; what remains is arithmetic on whole columns, which fuses into one loop
over the rows and vectorizes. Operations that need the whole value (a matrix product) get it joined.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import map_aggregate

MOST = 12  # columns; wider states vectorize along their own axis
aten = torch.ops.aten


class Parts:
    """A tensor (row, m) or (row, m, n) as an object array (m,) or (m, n) of tensors (row, 1)."""

    def __init__(self, cells: np.ndarray):
        self.cells = cells
        self._joined: Tensor | None = None

    def joined(self) -> Tensor:
        """The tensor itself."""
        if self._joined is None:
            lines = self.cells if self.cells.ndim > 1 else self.cells[None]
            made = [torch.cat(list(line), dim=-1) for line in lines]
            self._joined = made[0] if self.cells.ndim == 1 else torch.stack(made, dim=1)
        return self._joined


def joined(value: Any) -> Any:
    """A value that may be in parts, as it was."""
    return value.joined() if isinstance(value, Parts) else value


class InColumns(torch.fx.Interpreter):
    """Runs a graph with values in parts where they can be.

    Args:
        graph: A function of rows, traced.
        n_columns: Length of a state.
    """

    def __init__(self, graph: torch.fx.GraphModule, n_columns: int):
        super().__init__(graph)
        self.n_columns = n_columns

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One operation."""
        flat = [*args, *kwargs.values()]
        flat += [part for value in args if isinstance(value, (list, tuple)) for part in value]
        if target is aten._efficientzerotensor.default:
            target = aten.zeros.default  # no compiler knows the other
        rule = RULES.get(target)
        joins = target in (aten.cat.default, aten.stack.default)
        if joins or any(isinstance(value, Parts) for value in flat):
            if rule is None and (
                torch.Tag.pointwise in getattr(target, "tags", ()) or target in POINTWISE_PRIMS
            ):
                rule = _pointwise
            found = rule(self, target, *args, **kwargs) if rule is not None else None
            if found is not None:
                return found
        args, kwargs = map_aggregate((args, kwargs), joined)
        return super().call_function(target, args, kwargs)

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What the function returns, joined."""
        return map_aggregate(args[0], joined)

    def cells(self, value: Any) -> np.ndarray | None:
        """A value as an object array of columns; None where it cannot be one."""
        if isinstance(value, Parts):
            return value.cells
        if not isinstance(value, Tensor):
            return _boxed(value)
        if value.ndim == 0:
            return _boxed(value)
        sizes = value.shape[1:] if isinstance(value.shape[0], torch.SymInt) else value.shape
        if not all(isinstance(size, int) and size <= MOST for size in sizes) or len(sizes) > 2:
            return None
        if len(sizes) < value.ndim and not sizes:
            return None  # (row,) does not broadcast against (row, state)
        made = np.empty(sizes, dtype=object)
        for place in np.ndindex(*sizes):
            cell = value
            for i in place[:-1]:
                cell = cell.select(1 if len(sizes) < value.ndim else 0, i)
            if len(sizes) < value.ndim:
                made[place] = cell if sizes[-1] == 1 else cell[:, place[-1] : place[-1] + 1]
            else:
                made[place] = cell[place[-1] : place[-1] + 1]
        return made


def in_columns(function: Callable[..., Any], n_columns: int) -> Callable[..., Any]:
    """The function, traced and run in columns; itself where states are too wide or too narrow."""
    if not 2 <= n_columns <= MOST:
        return function

    def run(*arguments: Tensor) -> Any:
        from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

        with disable_proxy_modes_tracing():
            graph = make_fx(function)(*arguments)
        graph.graph.eliminate_dead_code()
        return InColumns(graph, n_columns).run(*arguments)

    return run


def _boxed(value: Any) -> np.ndarray:
    made = np.empty((), dtype=object)
    made[()] = value
    return made


def _filled(cells: list[Any]) -> np.ndarray:
    made = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):  # at once, numpy would look into the tensors
        made[i] = cell
    return made


def _pointwise(run: InColumns, target: Any, *args: Any, **kwargs: Any) -> Any:
    cells = [run.cells(value) for value in args]
    if any(cell is None for cell in cells) or any(isinstance(v, Parts) for v in kwargs.values()):
        return None
    shape = np.broadcast_shapes(*(cell.shape for cell in cells if cell is not None))
    spread = [np.broadcast_to(cell, shape) for cell in cells if cell is not None]
    made = np.empty(shape, dtype=object)
    for place in np.ndindex(*shape):
        made[place] = target(*(cell[place] for cell in spread), **kwargs)
    return Parts(made)


def _each(run: InColumns, target: Any, value: Parts, *args: Any, **kwargs: Any) -> Any:
    made = np.empty(value.cells.shape, dtype=object)
    for place in np.ndindex(*made.shape):
        made[place] = target(value.cells[place], *args, **kwargs)
    return Parts(made)


def _axis(value: Parts, dim: int) -> int:
    """Of the cells; -1 for the rows."""
    return dim - 1 if dim >= 0 else dim + value.cells.ndim


def _slice(
    run: InColumns, target: Any, value: Parts, dim: int = 0, start: Any = None, end: Any = None,
    step: int = 1,
) -> Any:  # fmt: skip
    axis = _axis(value, dim)
    if axis < 0:
        return None
    index = [slice(None)] * value.cells.ndim
    index[axis] = slice(start, end if end is None or end < 2**31 else None, step)
    return _narrow(value.cells[tuple(index)])


def _narrow(cells: np.ndarray) -> Any:
    """A single column is a tensor (row, 1) again."""
    return cells[0] if cells.shape == (1,) else Parts(cells)


def _select(run: InColumns, target: Any, value: Parts, dim: int, index: int) -> Any:
    axis = _axis(value, dim)
    if axis < 0:
        return None
    found = np.take(value.cells, index, axis=axis)
    return Parts(found) if isinstance(found, np.ndarray) and found.ndim else _flat(found)


def _flat(cell: Any) -> Tensor:
    cell = cell[()] if isinstance(cell, np.ndarray) else cell
    return cell.squeeze(-1)


def _split(run: InColumns, target: Any, value: Parts, sizes: Any, dim: int = 0) -> Any:
    axis = _axis(value, dim)
    if axis != value.cells.ndim - 1 or value.cells.ndim != 1:
        return None
    if isinstance(sizes, int):
        sizes = [sizes] * math.ceil(len(value.cells) / sizes)
    ends = np.cumsum(sizes)
    return [_narrow(value.cells[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def _unsqueeze(run: InColumns, target: Any, value: Parts, dim: int) -> Any:
    axis = dim - 1 if dim > 0 else dim + value.cells.ndim + 1
    if axis < 0 or value.cells.ndim > 1:
        return None
    return Parts(np.expand_dims(value.cells, axis))


def _cat(run: InColumns, target: Any, values: Any, dim: int = 0) -> Any:
    shapes = [(v.cells.ndim + 1 if isinstance(v, Parts) else v.ndim) for v in values]
    axis = dim - 1 if dim >= 0 else dim + shapes[0] - 1
    cells = [run.cells(value) for value in values]
    rows = [isinstance(v, Parts) or isinstance(v.shape[0], torch.SymInt) for v in values]
    known = [cell for cell in cells if cell is not None]
    if axis < 0 or len(known) < len(cells) or not all(rows):
        return None
    total = sum(cell.shape[axis] for cell in known)
    return Parts(np.concatenate(known, axis=axis)) if total <= MOST else None


def _stack(run: InColumns, target: Any, values: Any, dim: int = 0) -> Any:
    if not all(isinstance(v, Parts) or _is_column(v) for v in values):
        return None
    if all(isinstance(value, Parts) for value in values):
        axis = dim - 1 if dim >= 0 else dim + values[0].cells.ndim + 1
        return Parts(np.stack([v.cells for v in values], axis=axis)) if axis >= 0 else None
    if any(isinstance(value, Parts) for value in values) or dim not in (1, -1):
        return None
    if len(values) > MOST:
        return None
    return Parts(_filled([value.unsqueeze(-1) for value in values]))


def _is_column(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.ndim == 1 and isinstance(value.shape[0], torch.SymInt)
    )


def _reduced(combine: Callable[[Tensor, Tensor], Tensor], mean: bool = False) -> Callable[..., Any]:
    def rule(
        run: InColumns,
        target: Any,
        value: Parts,
        dim: Any = None,
        keepdim: bool = False,
        **rest: Any,
    ) -> Any:
        dims = [dim] if isinstance(dim, int) else dim
        last = value.cells.ndim
        if rest or not dims or list(dims) not in ([-1], [last]):
            return None
        lines = value.cells if last > 1 else value.cells[None]
        made = np.empty(len(lines), dtype=object)
        for i, line in enumerate(lines):
            total = line[0]
            for cell in line[1:]:
                total = combine(total, cell)
            made[i] = total / len(line) if mean else total
        if last == 1:
            return made[0] if keepdim else made[0].squeeze(-1)
        return Parts(made[:, None] if keepdim else made)

    return rule


def _expand(run: InColumns, target: Any, value: Parts, sizes: Any, **rest: Any) -> Any:
    wanted = list(sizes)[1:]
    if len(wanted) != value.cells.ndim:
        return None
    shape = [
        have if want == -1 else want for have, want in zip(value.cells.shape, wanted, strict=True)
    ]
    return Parts(np.broadcast_to(value.cells, shape))


def _placed(length: int, cells: np.ndarray, first: int, step: int = 1) -> Parts:
    made = _filled([torch.zeros_like(cells[0])] * length)
    made[first : first + step * len(cells) : step] = cells
    return Parts(made)


def _slice_backward(
    run: InColumns, target: Any, g: Any, sizes: Any, dim: int, start: int, end: int, step: int
) -> Any:
    cells = run.cells(g)
    if dim not in (1, -1) or len(sizes) != 2 or cells is None or cells.ndim != 1:
        return None
    return _placed(sizes[1], cells, start, step)


POINTWISE_PRIMS = {getattr(torch.ops.prims, name).default for name in ("mul", "add", "sub", "div")}
RULES: dict[Any, Callable[..., Any]] = {
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.split_with_sizes.default: _split,
    aten.split.Tensor: _split,
    aten.unsqueeze.default: _unsqueeze,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.amax.default: _reduced(torch.maximum),
    aten.all.dim: _reduced(torch.logical_and),
    aten.sum.dim_IntList: _reduced(torch.add),
    aten.mean.dim: _reduced(torch.add, mean=True),
    aten.expand.default: _expand,
    aten.slice_backward.default: _slice_backward,
    aten.clone.default: _each,
    aten._to_copy.default: _each,
    aten.alias.default: _each,
    aten.detach.default: _each,
    aten.zeros_like.default: _each,
    aten.ones_like.default: _each,
    aten.full_like.default: _each,
}
