"""Compile a pure function of tensors once, for every batch size: make_fx, then Inductor.

The one file that touches the compiler of torch, and what is not yet stable in it: `while_loop` (a
prototype) and `compile_fx`. The loop runs in C++ (`cpp_wrapper`), and tanh is decomposed
into operations that vectorize; both are set for one compilation, never for the process. Tested with
torch 2.13; `why_not` probes another release once and says in words what it lacks.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from .compiled_columns import in_columns
from .compiled_lean import lean_loops
from .compiled_products import prepare_products, turn

# Examples of sizes, all different: equal ones would be taken for one and the same axis.
SIZES = {"row": 61, "all": 67, "slot": 251, "time": 53, "piece": 5, "state": 3}
OPTIONS = {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}


Named = dict[str, Tensor]


class NotCompiled(Exception):
    """Why a function cannot be compiled, in words; callers turn it into a warning."""


@dataclass(frozen=True)
class Spec:
    """Shape, dtype and device of an argument; an axis is a number or a key of `SIZES`."""

    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float64
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Compiled:
    """A function compiled for a list of arguments, whose named axes may have any size >= 2.

    Args:
        function: Maps tensors to a tuple of tensors. It may write into its arguments.
        specs: One an argument.
        checks_indices: Whether a tensor of indices is looked through in every use.

    Raises:
        NotCompiled: The function cannot be traced: it decides by values, or uses a tensor that is
            not among its arguments.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        specs: Sequence[Spec],
        *,
        checks_indices: bool = True,
    ):
        self.specs = tuple(specs)
        self._options = OPTIONS | {"assert_indirect_indexing": checks_indices}
        self.n_compiled = 0
        self._function = function
        self._variants: list[tuple[Any, dict[str, int], Callable[..., Any]]] = []
        self._chosen: dict[tuple[int, ...], Callable[..., Any]] = {}
        self._add(SIZES)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The function's value; every tensor must be contiguous."""
        sizes = self._sizes(arguments)
        key = tuple(sizes.values())
        run = self._chosen.get(key)
        if run is None:
            run = self._chosen[key] = self._variant(sizes)
        with torch.no_grad():
            return tuple(run(*arguments))

    def _sizes(self, arguments: Sequence[Tensor]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for spec, argument in zip(self.specs, arguments, strict=True):
            for axis, size in zip(spec.shape, argument.shape, strict=True):
                if isinstance(axis, str):
                    sizes[axis] = size
        return sizes

    def _variant(self, sizes: dict[str, int]) -> Callable[..., Any]:
        """One that holds for these sizes: the first, unless it was specialized elsewhere."""
        for holds, symbols, run in self._variants:
            if holds({name: sizes[name] for name in symbols}):
                return run
        return self._add(sizes)

    def _add(self, hints: dict[str, int]) -> Callable[..., Any]:
        holds, symbols, run = _compile(self._function, self.specs, hints, self._options)
        self._variants.append((holds, symbols, run))
        self.n_compiled += 1
        return run


@functools.cache
def why_not(device: str) -> str:
    """Why nothing can be compiled for a device of this type; empty where something can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own modules
            from torch._higher_order_ops.while_loop import while_loop_op  # noqa: F401
            from torch._inductor.compile_fx import compile_fx  # noqa: F401
            from torch._inductor.cpp_builder import get_cpp_compiler
            from torch._inductor.exc import InvalidCxxCompiler
    except ImportError:
        return f"torch {torch.__version__} has no loops that compile"
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler (g++ or clang++) on this machine"
    return ""


def _compile(
    function: Callable[..., tuple[Tensor, ...]],
    specs: Sequence[Spec],
    hints: Mapping[str, int],
    options: Mapping[str, Any],
) -> tuple[Callable[[dict[str, int]], bool], dict[str, Any], Callable[..., Any]]:
    reason = why_not(specs[0].device.type)
    if reason:
        raise NotCompiled(reason)
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx

    mode, fakes, symbols = fake_arguments(specs, hints)
    context = TracingContext(mode)
    with warnings.catch_warnings(), torch.no_grad(), tracing(context):
        warnings.simplefilter("ignore")  # the compiler's own, about itself
        graph = graph_of(function, mode, fakes)
        try:
            with lean_loops():
                run = compile_fx(graph, fakes, config_patches=dict(options))
        except RuntimeError as error:  # base of all that the compiler raises
            raise NotCompiled(f"torch could not compile it ({first_line(error)})") from error
    environment = mode.shape_env
    guards = [guard.expr for guard in environment.guards]
    names = {symbol.node.expr: name for name, symbol in symbols.items()}

    def holds(sizes: dict[str, int]) -> bool:
        values = {symbol: sizes[name] for symbol, name in names.items() if name in sizes}
        return all(guard.xreplace(values) == True for guard in guards)  # noqa: E712

    return holds, symbols, cast("Callable[..., Any]", run)


def graph_of(function: Callable[..., Any], mode: Any, fakes: Sequence[Any]) -> torch.fx.GraphModule:
    """The function as a graph of operations.

    Raises:
        NotCompiled: It decides by values, or uses a tensor that is not among its arguments.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        with mode:
            return make_fx(function)(*fakes)
    except (DataDependentOutputException, GuardOnDataDependentSymNode) as error:
        raise NotCompiled("its Python code decides by the values of tensors") from error
    except (RuntimeError, AssertionError, TypeError) as error:  # it ran eagerly
        raise NotCompiled(f"it cannot be traced ({first_line(error)})") from error


def while_loop(
    goes_on: Callable[[Named, Named], Tensor],
    body: Callable[[Named, Named], Named],
    carried: Named,
    fixed: Named,
    written: Sequence[str] = (),
    n_columns: int = 0,
) -> Named:
    """A loop inside a function that is being compiled.

    Args:
        goes_on: (carried, fixed) -> whether the body runs (again), a scalar.
        body: (carried, fixed) -> carried, of the same shapes.
        carried: What changes.
        fixed: Everything else that is read: the loop sees nothing from outside.
        written: Names in `fixed` that the body writes into.
        n_columns: Length of a state, whose columns are then taken apart where they are few.

    Returns:
        What was carried, at the end.
    """
    from torch._higher_order_ops.while_loop import while_loop_op
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

    names, fixed_names = list(carried), list(fixed)

    def named(arguments: Sequence[Tensor]) -> tuple[Named, Named]:
        split = len(names)
        pairs = zip(names, arguments[:split], strict=True)
        return dict(pairs), dict(zip(fixed_names, arguments[split:], strict=False))

    def condition(*arguments: Tensor) -> Tensor:
        return goes_on(*named(arguments))

    def once(*arguments: Tensor) -> tuple[Tensor, ...]:
        after = body(*named(arguments))
        return tuple(after[name] for name in names)

    unwritten = [i for i, name in enumerate(fixed_names, len(names)) if name not in written]
    arguments = (*carried.values(), *fixed.values())
    with disable_proxy_modes_tracing():
        traced = make_fx(once)(*arguments)
    turned = tuple(turn(node, arguments[i]) for i, node in prepare_products(traced, unwritten))
    indices = ",".join(str(len(names) + fixed_names.index(name)) for name in written)
    out = while_loop_op(
        condition,
        in_columns(traced, n_columns),
        tuple(carried.values()),  # pyright: ignore[reportArgumentType]  # of any length
        (*fixed.values(), *turned),
        mutated_arg_indices=indices,
    )
    return dict(zip(names, out, strict=True))


def first_line(error: BaseException) -> str:
    """What an error says, without what only its own developers can read."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


def fake_arguments(
    specs: Sequence[Spec], hints: Mapping[str, int] | None = None
) -> tuple[Any, list[Tensor], dict[str, Any]]:
    """The mode of fake tensors, one fake tensor a spec, and the symbol of each named axis."""
    from torch._dynamo.source import ConstantSource
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    mode = FakeTensorMode(shape_env=ShapeEnv())
    dynamic = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    symbols: dict[str, Any] = {}
    for axis in dict.fromkeys(axis for spec in specs for axis in spec.shape):
        if isinstance(axis, str):
            line = torch.empty((hints or SIZES)[axis])
            source = ConstantSource(axis)
            symbols[axis] = mode.from_tensor(line, symbolic_context=dynamic, source=source).shape[0]
    with mode:
        fakes = [
            torch.empty(
                [symbols[a] if isinstance(a, str) else a for a in s.shape],
                dtype=s.dtype,
                device=s.device,
            )
            for s in specs
        ]
    return mode, fakes, symbols
