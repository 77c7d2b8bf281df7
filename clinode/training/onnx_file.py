"""A program of `torch.export` as one ONNX file, for those who run neither torch nor clinode.

What ONNX has no operator for is written with what it has: a search in sorted times becomes a count
of comparisons, memory that is filled later starts as zeros. Loops that write row after row into one
tensor come out of `torch.export` as a copy of all rows for each row; here every read is led to what
was written last, and the rows are put together once (`forward_writes`), so the graph grows with
the number of rows and not with its square.

A model that takes matrix exponentials or Cholesky factors of its states' covariance has no such
file: ONNX has neither, and a fixed number of terms would not be the same number.

The file holds, as metadata by name, `export.json`, `schema.json` and what corrects the answers.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OperatorBase
from torch.export import ExportedProgram
from torch.fx import Node

from clinode.errors import ArgumentError

_ATEN = torch.ops.aten
_PACKAGES = ("onnx", "onnxscript")


def require_onnx() -> None:
    """Refuse where a package is missing.

    Raises:
        ArgumentError: Names it, and what installs it.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ArgumentError(
            f"an ONNX file is written by {' and '.join(missing)}, which is not installed",
            fix="pip install 'clinode[export]', or name a folder for a program of torch.export",
        )


def as_onnx(program: ExportedProgram, outputs: list[str], about: Mapping[str, Any]) -> bytes:
    """A program as the content of an ONNX file.

    Args:
        program: Of one record.
        outputs: Their names.
        about: JSON-ready, by name; goes into the metadata.
    """
    with _quiet():
        plain = program.run_decompositions(_TABLE)
        forward_writes(plain)
        converted = torch.onnx.export(plain, dynamo=True, verbose=False, optimize=False)
        if converted is None:
            raise RuntimeError("torch.onnx.export gave nothing back")
        for node in converted.model.graph.all_nodes():
            node.metadata_props.clear()  # where on this machine it was traced
            for value in node.outputs:
                value.name = f"{value.name}_" if value.name in outputs else value.name
        for value, name in zip(converted.model.graph.outputs, outputs, strict=True):
            value.name = name
        converted.model.metadata_props.update(
            {name: json.dumps(told, sort_keys=True) for name, told in about.items()}
        )
        return converted.model_proto.SerializeToString()


def onnx_answers(content: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
    """What an ONNX file answers, by the reference implementation of its operators."""
    from onnx import load_from_string  # pyright: ignore[reportMissingImports]  # extra `export`
    from onnx.reference import ReferenceEvaluator  # pyright: ignore[reportMissingImports]

    session = ReferenceEvaluator(load_from_string(content))
    fed = dict(zip(session.input_names, (part.numpy() for part in inputs), strict=True))
    with np.errstate(all="ignore"):  # exp of a closed gate
        return [torch.from_numpy(np.asarray(part)) for part in session.run(None, fed)]


def _search(
    sorted_sequence: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    among, asked = sorted_sequence.unsqueeze(-2), values.unsqueeze(-1)
    return ((among <= asked) if right or side == "right" else (among < asked)).sum(-1)


def _zeros_like(like: Tensor, *, dtype: torch.dtype | None = None, **placed: Any) -> Tensor:
    return torch.zeros_like(like, dtype=dtype)


_TABLE: dict[OperatorBase, Callable[..., Any]] = {
    _ATEN.searchsorted.Tensor: _search,
    _ATEN.empty_like.default: _zeros_like,
}


def forward_writes(program: ExportedProgram) -> None:
    """Reads of a part lead to what was last written there; complete writes become one `cat`."""
    graph = program.graph_module.graph
    for split in graph.find_nodes(op="call_function", target=_ATEN.split_with_sizes.default):
        base, sizes, dim = split.args[0], split.args[1], _argument(split, 2, "dim", 0)
        for read in [user for user in split.users if user.users]:
            start = sum(sizes[: read.args[1]])
            _lead(graph, read, base, dim, (start, start + sizes[read.args[1]]))
    for read in graph.find_nodes(op="call_function", target=_ATEN.slice.Tensor):
        bounds = _bounds(read, 1)
        if bounds is not None and _argument(read, 4, "step", 1) == 1:
            _lead(graph, read, read.args[0], _argument(read, 1, "dim", 0), bounds)
    graph.eliminate_dead_code()
    for last in reversed(graph.find_nodes(op="call_function", target=_WRITE)):
        if last.users:
            _put_together(graph, last)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


_WRITE = _ATEN.slice_scatter.default


def _lead(graph: Any, read: Node, base: Any, dim: int, part: tuple[int, int]) -> None:
    """Replace a read by what was last written to exactly this part, or by an earlier slice."""
    earlier = base
    while isinstance(earlier, Node) and earlier.target == _WRITE:
        written = _bounds(earlier, 2)
        if written is None or _argument(earlier, 2, "dim", 0) != dim:
            break
        if written == part:
            read.replace_all_uses_with(earlier.args[1])  # pyright: ignore[reportArgumentType]  # a node
            return
        if written[0] < part[1] and part[0] < written[1]:
            break
        earlier = earlier.args[0]
    with graph.inserting_before(read):
        new = graph.call_function(_ATEN.slice.Tensor, (earlier, dim, *part))
    new.meta = dict(read.meta)
    read.replace_all_uses_with(new)


def _put_together(graph: Any, last: Node) -> None:
    """Replace the last of writes that cover everything by their concatenation."""
    dim, size = _argument(last, 2, "dim", 0), last.meta["val"].shape
    parts: dict[tuple[int, int], Any] = {}
    node: Any = last
    while isinstance(node, Node) and node.target == _WRITE:
        written = _bounds(node, 2)
        if written is None or _argument(node, 2, "dim", 0) != dim:
            break
        parts.setdefault(written, node.args[1])
        node = node.args[0]
    ordered = sorted(parts)
    stops = [0, *(stop for _, stop in ordered)]
    if any(start < stop for (start, _), stop in zip(ordered, stops, strict=False)):
        return  # they overlap
    with graph.inserting_before(last):
        for start, stop in zip(stops, [*(start for start, _ in ordered), size[dim]], strict=True):
            if start < stop:  # never written
                kept = graph.call_function(_ATEN.slice.Tensor, (node, dim, start, stop))
                kept.meta["val"] = last.meta["val"].narrow(dim, start, stop - start)
                parts[start, stop] = kept
    ordered = sorted(parts)
    with graph.inserting_before(last):
        new = graph.call_function(_ATEN.cat.default, ([parts[part] for part in ordered], dim))
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)


def _bounds(node: Node, dim_at: int) -> tuple[int, int] | None:
    """Where a slice, or a write into one, begins and ends; None where its step is not one."""
    dim = _argument(node, dim_at, "dim", 0)
    size = node.args[0].meta["val"].shape[dim]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]  # a node
    start, stop = (
        _argument(node, dim_at + 1, "start", None),
        _argument(node, dim_at + 2, "end", None),
    )
    if _argument(node, dim_at + 3, "step", 1) != 1:
        return None
    start, stop = 0 if start is None else start, size if stop is None else stop
    start, stop = (end + size if end < 0 else end for end in (start, stop))
    return min(start, size), min(stop, size)


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter says about packages that it does not need."""
    names = ("torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
