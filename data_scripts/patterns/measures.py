"""What tells sets of images apart before anything learns from them: roughness, empty patches, compressed size.

An image is float32 in [0, 1], 3 colours, and measured at the size at which it is used: the same picture resized has
another total variation.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PATCH = 16
"""Side of a patch in pixels: that of the models which learn from these images."""


def total_variation(images: Tensor) -> Tensor:
    r"""Mean step from a value to its neighbour, to the right and below, added: anisotropic, L1.

    $\frac{1}{3 H W} \sum_{c, y, x} |I(y, x + 1) - I(y, x)| + |I(y + 1, x) - I(y, x)|$

    Args:
        images: In [0, 1], shape `(batch, 3, height, width)`.

    Returns:
        Shape `(batch,)`; about 2/3 for white noise.

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 3, 32, 32)
        >>> total_variation(stripes).tolist()
        [0.96875]
    """
    right, down = (images.diff(dim=axis).abs().sum(dim=(1, 2, 3)) for axis in (3, 2))
    return (right + down) / images[0].numel()


def _patches(images: Tensor) -> Tensor:
    """Whole patches, shape `(batch, patches, 3, PATCH^2)`; what is left over at the right and below is not seen."""
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(4).flatten(1, 2)


def blank_share(images: Tensor) -> Tensor:
    """Share of patches of 16 x 16 pixels whose 768 values are all the same; shape `(batch,)`.

    Args:
        images: In [0, 1], shape `(batch, 3, height, width)`, 16 pixels or more each way.

    Example:
        >>> grey = torch.full((1, 3, 32, 32), 0.5)
        >>> grey[:, 0, 16:] = 0.6
        >>> blank_share(grey).tolist(), flat_share(grey).tolist()
        ([0.5], [1.0])
    """
    values = _patches(images).flatten(2)
    return (values.amax(dim=2) == values.amin(dim=2)).float().mean(dim=1)


def flat_share(images: Tensor) -> Tensor:
    """Share of patches of 16 x 16 pixels that are of one colour, whichever; as `blank_share`."""
    values = _patches(images)
    return (values.amax(dim=3) == values.amin(dim=3)).all(dim=2).float().mean(dim=1)


def to_bytes(images: Tensor) -> np.ndarray:
    """Images in [0, 1] as 8 bits per colour, shape `(batch, height, width, 3)`.

    Example:
        >>> to_bytes(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)).tolist()
        [[[[0, 128, 255]]]]
    """
    return images.mul(255).add(0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def png(pixels: np.ndarray) -> bytes:
    """One image of 8 bits per colour, shape `(height, width, 3)`, as a PNG file.

    Example:
        >>> png(np.zeros((32, 32, 3), np.uint8))[1:4]
        b'PNG'
    """
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def bits_per_pixel(images: Tensor) -> Tensor:
    """Size of each image as a PNG file of 8 bits per colour, in bits per pixel: 24 at least for noise.

    Args:
        images: In [0, 1], shape `(batch, 3, height, width)`.

    Returns:
        float32, shape `(batch,)`.

    Example:
        >>> bool(bits_per_pixel(torch.zeros(1, 3, 64, 64)) < 0.5)
        True
    """
    pixels = images.shape[2] * images.shape[3]
    return torch.tensor([8 * len(png(image)) / pixels for image in to_bytes(images)])


def measures(images: Tensor) -> dict[str, Tensor]:
    """All of them by name, each of shape `(batch,)`.

    Example:
        >>> list(measures(torch.zeros(1, 3, 32, 32)))
        ['total_variation', 'blank_share', 'flat_share', 'bits_per_pixel']
    """
    return {
        "total_variation": total_variation(images),
        "blank_share": blank_share(images),
        "flat_share": flat_share(images),
        "bits_per_pixel": bits_per_pixel(images),
    }
