"""What the layers of a network answer to stimuli."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clinode.errors import ArgumentError


def layer_patterns(
    network: nn.Module, stimuli: Tensor, layers: Sequence[str]
) -> dict[str, Float[Tensor, "stimulus unit"]]:
    """Outputs of named layers, one row a stimulus, in the order asked for.

    The network is called once, in evaluation mode and without gradients, and left as it was.

    Args:
        network: Called with `stimuli`.
        stimuli: (stimulus, ...).
        layers: Names as `named_modules` gives them.

    Raises:
        ArgumentError: The network has no such layer, a layer was not called or called more than
            once, or its output is no tensor with a row a stimulus.
    """
    known = dict(network.named_modules())
    if unknown := [name for name in layers if name not in known]:
        raise ArgumentError(
            f"the network has no layer {unknown[0]!r}; there are: {', '.join(filter(None, known))}"
        )
    seen: dict[str, list] = {name: [] for name in layers}

    def keep(name: str):
        return lambda module, given, out: seen[name].append(out)

    hooks = [known[name].register_forward_hook(keep(name)) for name in layers]
    was_training = [module for module in network.modules() if module.training]
    try:
        network.eval()
        with torch.no_grad():
            network(stimuli)
    finally:
        for hook in hooks:
            hook.remove()
        for module in was_training:
            module.training = True
    for name, outputs in seen.items():
        if len(outputs) != 1:
            raise ArgumentError(
                f"the layer {name!r} was called {len(outputs)} times, expected once"
            )
        out = outputs[0]
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(stimuli):
            raise ArgumentError(f"the output of {name!r} has no row for each stimulus")
    return {name: outputs[0].flatten(1) for name, outputs in seen.items()}
