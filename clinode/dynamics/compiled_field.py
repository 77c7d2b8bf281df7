"""A system as a pure function of tensors, and by what a compiled solution of it is found again.

Constants, weights and buffers are arguments, so new values need no new compilation, and constants
may differ between trajectories: every declared constant gets an axis of rows. What else a field
reads (numbers and words on the system, the classes of its parts) is baked into the compiled code.
`fingerprint` collects it, and where it changed the field is traced anew; the operations found are
then compared, so that another system of the same class shares the compiled code.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clinode.system import LinearSystem, Quantity, System

from .compiled_trace import NotCompiled, Spec, fake_arguments, graph_of

KEPT_BY_MODULES = set(vars(nn.Module())) - {"training"}
DEEPEST = 8  # attributes within attributes that are watched
_KNOWN: dict[Any, tuple[str, bool]] = {}
_OWN_AXES: dict[Any, dict[str, tuple[int, bool]]] = {}


@dataclass(frozen=True, eq=False)
class PureField:
    """The field with everything that it computes with as arguments.

    Attributes:
        system: Whose field it is.
        mark: Its fingerprint.
        names: Of its tensors, as in `named_parameters` and `named_buffers`.
        tensors: Their values; with a leading axis of rows where `specs` says so.
        specs: Their shapes.
    """

    system: System
    mark: tuple[Any, ...]
    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    specs: tuple[Spec, ...]

    def __call__(self, t: Tensor, x: Tensor, u: Tensor, *tensors: Tensor) -> Tensor:
        """dx/dt of rows: t (row,), x (row, state), u (row, input)."""
        values = dict(zip(self.names, tensors, strict=True))
        return torch.func.functional_call(self.system, values, (t, x, u))

    @functools.cached_property
    def operations(self) -> tuple[str, bool]:
        """What it computes, as text, and whether time is in it.

        Equal texts mean equal compiled code. Traced only where the fingerprint is new.

        Raises:
            NotCompiled: It cannot be traced.
        """
        key = (self.mark, self.specs)
        if key not in _KNOWN:
            _KNOWN[key] = self._traced()
        return _KNOWN[key]

    def _traced(self) -> tuple[str, bool]:
        made = self.system
        of, where = made.dtype, made.device
        first = (
            Spec(("row",), torch.float64, where),
            Spec(("row", made.n_states), of, where),
            Spec(("row", made.n_inputs), of, where),
        )
        specs = (*first, *self.specs)
        mode, fakes, _ = fake_arguments(specs)
        graph = graph_of(lambda *arguments: (self(*arguments),), mode, fakes)
        values = [value for name, value in vars(graph).items() if isinstance(value, Tensor)]
        stored = [(tuple(v.shape), v.dtype, v.detach().cpu().numpy().tobytes()) for v in values]
        shapes = [(spec.shape, str(spec.dtype), str(spec.device)) for spec in specs]
        drifts = bool(next(iter(graph.graph.nodes)).users)
        return f"{graph.code}\n{shapes}\n{stored}", drifts


def pure_field(system: System, batch: torch.Size) -> PureField:
    """The field of a system for trajectories of a batch, flattened into rows.

    Raises:
        NotCompiled: A tensor of the system cannot be given a row for every trajectory.
    """
    named: dict[str, Tensor] = {}
    mark = fingerprint(system, named)
    if mark not in _OWN_AXES:
        _OWN_AXES[mark] = own_axes(system)
    axes = _OWN_AXES[mark]
    tensors, specs = [], []
    for name, tensor in named.items():
        shape: tuple[int | str, ...] = tuple(tensor.shape)
        n_own, always = axes.get(name, (tensor.ndim, False))
        if always or tensor.ndim > n_own:
            own = tensor.shape[tensor.ndim - n_own :]
            tensor = tensor.expand(*batch, *own).reshape(batch.numel(), *own)
            shape = ("row", *own)
        tensors.append(tensor)
        specs.append(Spec(shape, tensor.dtype, tensor.device))
    return PureField(system, mark, tuple(named), tuple(tensors), tuple(specs))


def own_axes(system: System) -> dict[str, tuple[int, bool]]:
    """Of tensors that may have batch axes: how many are their own, and if rows are always made.

    Declared constants always get rows: shared and batched constants then run the same code.
    """
    found: dict[str, tuple[int, bool]] = {}
    for path, part in system.named_modules():
        if not isinstance(part, System):
            continue
        prefix = f"{path}." if path else ""
        found |= {prefix + quantity.name: (1, True) for quantity in part.constants}
        if isinstance(part, LinearSystem):
            found |= {prefix + name: (2, False) for name in "ABCD"}
            found |= {prefix + name: (1, False) for name in ("x0", "u0", "y0")}
    return found


def fingerprint(
    module: nn.Module, tensors: dict[str, Tensor] | None = None, prefix: str = ""
) -> tuple[Any, ...]:
    """Everything but values of tensors that the field of a module may read from its instances.

    Args:
        module: The system, or a part of it.
        tensors: Its parameters and buffers are put here, by their full name.
        prefix: Of their names.

    Raises:
        NotCompiled: An attribute whose changes would go unseen.
    """
    shapes = []
    for several in (module._parameters, module._buffers):
        for name, tensor in several.items():
            if tensor is not None:
                shapes.append((name, tensor.shape, tensor.dtype, tensor.device))
                if tensors is not None:
                    tensors[prefix + name] = tensor
    own = [
        (name, _frozen(value, name))
        for name, value in vars(module).items()
        if name not in KEPT_BY_MODULES
    ]
    parts = [
        (name, fingerprint(part, tensors, f"{prefix}{name}."))
        for name, part in module._modules.items()
        if part is not None
    ]
    return (type(module), tuple(shapes), tuple(own), tuple(parts))


def _frozen(value: Any, name: str, depth: int = 0) -> Any:
    """A value as something hashable that is equal exactly where the value is."""
    if depth > DEEPEST:
        raise NotCompiled(f"its attribute '{name}' holds too much to watch for changes")
    if value is None or isinstance(value, (str, bytes, type, torch.dtype, torch.device)):
        return value
    if isinstance(value, (int, float, complex)):
        return (type(value), repr(value))  # 0.0 is not -0.0, and True is not 1
    if isinstance(value, (list, tuple, set, frozenset)):
        return (type(value), tuple(_frozen(part, name, depth + 1) for part in value))
    if isinstance(value, dict):
        parts = [part for pair in value.items() for part in pair]
        return (dict, _frozen(parts, name, depth + 1))
    if isinstance(value, Tensor):
        raise NotCompiled(f"its tensor '{name}' is neither a buffer nor a parameter")
    if isinstance(value, nn.Module):
        return fingerprint(value)
    if isinstance(value, Quantity) or not hasattr(value, "__dict__") or callable(value):
        return value  # immutable, or told apart by identity
    return (type(value), _frozen(vars(value), name, depth + 1))
