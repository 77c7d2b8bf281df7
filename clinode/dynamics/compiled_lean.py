"""Loops of Inductor without allocations that nothing needs, for the release this was tested with.

In the C++ code of torch 2.13 a loop makes a new handle to every tensor that it reads, in every turn
and for its condition again; and what a fused kernel keeps in registers is allocated all the same:
two thirds of a turn of a small system. Another release compiles loops as it does, and slower.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

TESTED = "2.13."


@contextlib.contextmanager
def lean_loops() -> Iterator[None]:
    """Code that is generated inside has no handles and buffers that are not needed."""
    if not torch.__version__.startswith(TESTED):
        yield
        return
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
    from torch._inductor.graph import GraphLowering

    generate = GraphLowering.codegen_subgraph

    def codegen_subgraph(self: Any, parent_graph: Any) -> None:
        generate(self, parent_graph)
        parent_graph.removed_buffers |= self.removed_buffers

    with (
        mock.patch.object(GraphLowering, "codegen_subgraph", codegen_subgraph),
        mock.patch.object(CppWrapperCpu, "codegen_subgraph_prefix", _borrow),
    ):
        yield


def _borrow(self: Any, subgraph: Any, outer_inputs: Any, outer_outputs: Any) -> None:
    """Arguments of a subgraph as what they are outside, instead of as new handles to it."""
    from torch._inductor import ir

    kind = f"{subgraph.name}_borrowed"
    own = "using ConstantHandle::ConstantHandle; void reset() {}"
    self.writeline(f"struct {kind} : ConstantHandle {{ {own} }};")
    arguments = zip(subgraph.graph.graph_inputs.items(), outer_inputs, strict=True)
    for (name, value), outer in arguments:
        if not isinstance(value, ir.TensorBox):
            continue
        if not outer.isidentifier():  # a view, which must live as long as the argument
            self.writeline(f"auto {name}_owner = {outer};")
            outer = f"{name}_owner"
        self.writeline(f"{kind} {name}({outer});")
