"""One step of a fixed-step method as a graph of operations, and what can be done to it beforehand.

What does not change from step to step (of constants alone, or of a constant input) is computed
once, before the loop; a division by such a value becomes a product with its reciprocal, so a
compiled step differs from an eager one by rounding. States are taken apart into their blocks, and
arithmetic on a whole state into arithmetic on each: no state is put together in the loop. Sums over
what regions see of one another's past run over trajectories in their innermost loop.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from clinode.system import Past, System

from .compiled_trace import Spec, fake_arguments, graph_of
from .fixed_step import FIXED_STEP

FRACTIONS = {  # of a step, at which a method asks for the input
    "euler": (0.0,),
    "heun": (0.0, 1.0),
    "midpoint": (0.0, 0.5),
    "rk4": (0.0, 0.5, 1.0),
}
aten = torch.ops.aten
POINTWISE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default}


@dataclass(frozen=True, eq=False)
class StepGraph:
    """A step of a system by a method.

    Attributes:
        before: (constants, and a constant input behind them) -> what the steps need of them.
        held: What that is.
        step: (blocks, time, width, inputs, past, what they need) -> blocks a step later.
        text: What both compute; equal texts mean equal code.
    """

    before: GraphModule
    held: tuple[Spec, ...]
    step: GraphModule
    text: str


@dataclass(frozen=True)
class StepShape:
    """The arguments of a step, besides time and width.

    Attributes:
        blocks: (row, size) of each state.
        inputs: One at each fraction of the method; one for all where the input is constant.
        varies: Whether the input changes over time.
        past: By delayed state.
        constants: By name.
    """

    blocks: tuple[Spec, ...]
    inputs: tuple[Spec, ...]
    varies: bool
    past: dict[str, Spec]
    constants: dict[str, Spec]


def step_graph(system: System, method: str, shape: StepShape) -> StepGraph:
    """Trace a step and split it.

    Raises:
        NotCompiled: The field cannot be traced.
    """
    device = shape.blocks[0].device
    scalar = Spec((), torch.float64, device)
    moving = [*shape.blocks, scalar, scalar, *(shape.inputs if shape.varies else ())]
    moving += shape.past.values()
    held = [*shape.constants.values(), *(() if shape.varies else shape.inputs)]
    mode, fakes, _ = fake_arguments([*moving, *held])
    graph = graph_of(_step_function(system, method, shape), mode, fakes)
    _apart(graph)
    _across_rows(graph)
    graph.graph.eliminate_dead_code()
    before, held_specs, step = _split(graph, len(moving))
    literal = [value for value in vars(graph).values() if isinstance(value, Tensor)]
    stored = [(v.shape, v.dtype, v.detach().cpu().numpy().tobytes()) for v in literal]
    return StepGraph(before, held_specs, step, f"{before.code}\n{step.code}\n{stored}")


def _step_function(
    system: System, method: str, shape: StepShape
) -> Callable[..., tuple[Tensor, ...]]:
    one_step, fractions = FIXED_STEP[method][0], FRACTIONS[method]
    sizes = [quantity.size for quantity in system.states]

    def function(*arguments: Tensor) -> tuple[Tensor, ...]:
        given = iter(arguments)
        blocks = [next(given) for _ in shape.blocks]
        t, h = next(given), next(given)
        inputs = [next(given) for _ in shape.inputs] if shape.varies else []
        past: Past = {name: next(given) for name in shape.past}
        constants = {name: next(given) for name in shape.constants}
        inputs = inputs or [next(given)] * len(fractions)

        def rate(fraction: float, x: Tensor) -> Tensor:
            u = inputs[fractions.index(fraction)]
            seen = (past,) if past else ()
            call = (t + fraction * h, x, u, *seen)
            return torch.func.functional_call(system, constants, call)

        x = torch.cat(blocks, dim=-1)
        return torch.split(one_step(rate, h.to(x.dtype), x), sizes, dim=-1)

    return function


def _apart(graph: GraphModule) -> None:
    """Arithmetic on states put together as arithmetic on their blocks."""
    parts: dict[Node, list[Node]] = {}  # of what is a state put together
    for node in list(graph.graph.nodes):
        target, last = node.target, _ndim(node) - 1
        if target is aten.cat.default and _along_last(node, last):
            parts[node] = list(_args(node)[0])
        elif target in POINTWISE and any(argument in parts for argument in _args(node)):
            made = _by_part(graph, node, parts)
            if made is not None:
                parts[node] = made
        elif target is operator.getitem and _args(node)[0].target is aten.split_with_sizes.default:
            whole, sizes = _args(_args(node)[0])[:2]
            if whole in parts and list(sizes) == [_size(part) for part in parts[whole]]:
                node.replace_all_uses_with(parts[whole][_args(node)[1]])
        elif target is aten.slice.Tensor and _args(node)[0] in parts:
            found = _sliced(node, parts[_args(node)[0]])
            if found is not None:
                node.replace_all_uses_with(found)


def _by_part(graph: GraphModule, node: Node, parts: dict[Node, list[Node]]) -> list[Node] | None:
    """The parts of a pointwise result; None where an argument is not in such parts."""
    sizes = next([_size(p) for p in parts[a]] for a in _args(node) if a in parts)
    for argument in _args(node):
        if argument in parts:
            if [_size(part) for part in parts[argument]] != sizes:
                return None
        elif isinstance(argument, Node) and _ndim(argument) > 0 and _size(argument) != 1:
            return None
    made, target = [], cast("Callable[..., Any]", node.target)
    with graph.graph.inserting_after(node):
        for i in reversed(range(len(sizes))):
            own = [parts[a][i] if a in parts else a for a in _args(node)]
            new = graph.graph.call_function(target, tuple(own), dict(node.kwargs))
            new.meta["val"] = node.meta["val"][..., : sizes[i]]
            made.insert(0, new)
    return made


def _sliced(node: Node, parts: list[Node]) -> Node | None:
    """The part that a slice of the last axis is."""
    _, dim, start, stop = (*_args(node), 0, 0)[:4]
    if dim not in (-1, _ndim(node) - 1):
        return None
    place = 0
    for part in parts:
        if place == start and (place + _size(part) == stop or (part is parts[-1] and stop > place)):
            return part
        place += _size(part)
    return None


def _across_rows(graph: GraphModule) -> None:
    """Sums over the last axis with the axes turned round, so that rows are innermost."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.sum.dim_IntList or len(_args(node)) > 2 or _ndim(node) < 2:
            continue
        whole, axes = _args(node)
        n = _ndim(whole)
        if list(axes) not in ([-1], [n - 1]):
            continue
        with graph.graph.inserting_before(node):
            call = graph.graph.call_function
            turned = call(aten.permute.default, (whole, list(reversed(range(n)))))
            total = call(aten.sum.dim_IntList, (turned, [0]))
            back = call(aten.permute.default, (total, list(reversed(range(n - 1)))))
        back.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(back)


def _split(graph: GraphModule, n_moving: int) -> tuple[GraphModule, tuple[Spec, ...], GraphModule]:
    """What is computed once, what of it is needed, and what is computed in every step."""
    nodes = list(graph.graph.nodes)
    arguments = [node for node in nodes if node.op == "placeholder"]
    moving = set(arguments[:n_moving])
    for node in nodes:
        if node.op == "call_function":
            depends = any(before in moving for before in node.all_input_nodes)
            if depends or not isinstance(node.meta.get("val"), Tensor):
                moving.add(node)
                _divide_by_reciprocal(graph, node, moving)
    nodes = list(graph.graph.nodes)
    needed = [
        node
        for node in nodes
        if node not in moving
        and node.op in ("placeholder", "call_function")
        and any(user in moving or user.op == "output" for user in node.users)
    ]
    before, made = Graph(), {}
    for node in nodes:
        if node in arguments[n_moving:] or (node not in moving and node.op in KEPT):
            made[node] = before.node_copy(node, made.__getitem__)
    before.output(tuple(made[node] for node in needed))
    step, made = Graph(), {}
    for node in arguments[:n_moving]:
        made[node] = step.node_copy(node, made.__getitem__)
    for i, node in enumerate(needed):
        made[node] = step.placeholder(f"held{i}")
    for node in nodes:
        if node in made or node.op == "placeholder":
            continue
        if node.op == "output" or node in moving or node.op == "get_attr":
            made[node] = step.node_copy(node, made.__getitem__)
    specs = tuple(_spec(node.meta["val"]) for node in needed)
    return GraphModule(graph, before), specs, GraphModule(graph, step)


KEPT = ("call_function", "get_attr")


def _spec(value: Tensor) -> Spec:
    """Of a value with at most one axis whose size is not known: that of rows."""
    shape = tuple(size if isinstance(size, int) else "row" for size in value.shape)
    return Spec(shape, value.dtype, value.device)


def _divide_by_reciprocal(graph: GraphModule, node: Node, moving: set[Node]) -> None:
    """x / c as x (1 / c), c the same in every step."""
    if node.target is not aten.div.Tensor or _args(node)[0] not in moving:
        return
    below = _args(node)[1]
    if not isinstance(below, Node) or below in moving:
        return
    with graph.graph.inserting_before(node):
        inverse = graph.graph.call_function(aten.reciprocal.default, (below,))
    inverse.meta["val"] = below.meta["val"]
    node.target, node.args = aten.mul.Tensor, (_args(node)[0], inverse)


def _along_last(node: Node, last: int) -> bool:
    dim = _args(node)[1] if len(_args(node)) > 1 else 0
    whole = [part for part in _args(node)[0] if _ndim(part) == last + 1]
    return dim in (-1, last) and len(whole) == len(_args(node)[0])


def _ndim(node: Node) -> int:
    value = node.meta.get("val")
    return value.ndim if isinstance(value, Tensor) else 0


def _size(node: Node) -> int:
    return int(node.meta["val"].shape[-1])


def _args(node: Node) -> tuple[Any, ...]:
    """What an operation is called with; torch types it as all that it could be."""
    return node.args
