"""A simulated visual cortex that answers images: energies of oriented filters, then pooling.

V1 complex cells as the energy of a quadrature pair of Gabor filters (Adelson & Bergen 1985, J. Opt.
Soc. Am. A 2:284-299), divided by the energy of their neighbours in orientation (Heeger 1992, Vis.
Neurosci. 9:181-197), and a second stage that pools energies over places and compares orientations.
A ground truth with which methods of comparison can be tried, not a model of a brain.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from clinode.errors import ArgumentError

SATURATION = 0.1  # added to the energy that divides; images range from 0 to 1


class EnergyCortex(nn.Module):
    """Images -> V1 energies -> pooled stage.

    Args:
        size: Side of the images, pixels, at least 4.
        n_orientations: Of the filters, evenly over 180 degrees.
        wavelengths: Of the filters, pixels a cycle.
    """

    even: Tensor
    odd: Tensor

    def __init__(
        self, size: int = 8, n_orientations: int = 8, wavelengths: tuple[float, ...] = (3.0, 5.0)
    ):
        super().__init__()
        if size < 4 or n_orientations < 2 or not wavelengths or min(wavelengths) < 2:
            raise ArgumentError(
                "images must be of 4 pixels or more, with two orientations or more and wavelengths "
                "of two pixels or more"
            )
        self.size, self.n_orientations = size, n_orientations
        even, odd = _gabors(n_orientations, wavelengths)
        self.register_buffer("even", even)
        self.register_buffer("odd", odd)

    def v1(self, images: Float[Tensor, "image row column"]) -> Float[Tensor, "image unit"]:
        """Normalised energies at every place, of every orientation and wavelength."""
        return self._energies(images).flatten(1)

    def pooled(self, images: Float[Tensor, "image row column"]) -> Float[Tensor, "image unit"]:
        """Pairs of orientations that occur together, anywhere in a quarter of the image."""
        energies = self._energies(images).unflatten(1, (-1, self.n_orientations)).mean(dim=1)
        quarters = functional.adaptive_avg_pool2d(energies, 2)
        second = torch.einsum("noxy,npxy->nopxy", quarters.sqrt(), quarters.sqrt())
        first, other = torch.triu_indices(*[self.n_orientations] * 2, device=images.device)
        return second[:, first, other].flatten(1)

    def _energies(self, images: Tensor) -> Float[Tensor, "image filter row column"]:
        if images.ndim != 3 or images.shape[1:] != (self.size, self.size):
            raise ArgumentError(
                f"expected images of {self.size} by {self.size}, got shape {tuple(images.shape)}"
            )
        seen = images.to(self.even).unsqueeze(1)
        seen = seen - seen.mean(dim=(2, 3), keepdim=True)
        reach = self.even.shape[-1] // 2
        energy = (
            functional.conv2d(seen, self.even, padding=reach).square()
            + functional.conv2d(seen, self.odd, padding=reach).square()
        )
        by_wavelength = energy.unflatten(1, (-1, self.n_orientations))
        pool = by_wavelength.mean(dim=2, keepdim=True)
        return (by_wavelength / (pool + SATURATION)).flatten(1, 2)


def _gabors(n_orientations: int, wavelengths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """(filter, 1, row, column): cosine and sine phase, without an answer to a constant image."""
    reach = math.ceil(max(wavelengths))
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1).double()] * 2, indexing="ij")
    even, odd = [], []
    for wavelength in wavelengths:
        window = torch.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
        for k in range(n_orientations):
            angle = math.pi * k / n_orientations
            phase = 2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle))
            cosine = window * torch.cos(phase)
            cosine = cosine - window * (cosine.sum() / window.sum())
            sine = window * torch.sin(phase)
            even.append(cosine / torch.linalg.matrix_norm(cosine))
            odd.append(sine / torch.linalg.matrix_norm(sine))
    return torch.stack(even).unsqueeze(1).float(), torch.stack(odd).unsqueeze(1).float()
