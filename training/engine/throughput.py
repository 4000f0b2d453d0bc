"""How fast training could be and how fast it is: FLOP by formula, the device's peak, and where a step's time goes."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from audiopg.modeling.configuration_audiopg import AudioPGConfig

T = TypeVar("T")


def block_flop(tokens: int, width: int, intermediate_size: int) -> int:
    r"""FLOP of one Transformer block on one clip, forward, a multiply-add counting as two.

    With $n$ tokens of width $d$: queries, keys, values and output projection $2 \cdot 4 n d^2$, scores and mixture
    $2 \cdot 2 n^2 d$ (whatever the number of heads), feed-forward $2 \cdot 2 n d m$ with $m$ its inner width. Norms,
    activations and softmax are of lower order and left out, as usual.

    Example:
        >>> block_flop(tokens=129, width=768, intermediate_size=3072)
        1877216256
    """
    return 2 * tokens * (4 * width**2 + 2 * tokens * width + 2 * width * intermediate_size)


def flop_per_clip(config: AudioPGConfig, num_patches: int) -> int:
    r"""FLOP of a training step per clip: forward, and backward at twice that.

    The encoder sees $1 + \lfloor n (1 - r) \rfloor$ tokens, the decoder all $1 + n$. Besides the blocks there are
    three linear layers: patches into the encoder, tokens into the decoder, patches out of it. The backward pass has
    two products, for the inputs and for the weights, where the forward pass has one.

    Args:
        config: Of the model.
        num_patches: Patches $n$ of a clip.

    Returns:
        The number, synthesis and log-mel not included.

    Example:
        >>> round(flop_per_clip(AudioPGConfig(), num_patches=512) / 1e9)
        159
    """
    visible = max(1, int(num_patches * (1 - config.mask_ratio)))
    pixels, width, decoder_width = config.patch_size**2, config.hidden_size, config.decoder_hidden_size
    encoder = config.num_hidden_layers * block_flop(1 + visible, width, config.intermediate_size)
    decoder = config.decoder_num_hidden_layers * block_flop(
        1 + num_patches, decoder_width, config.decoder_intermediate_size
    )
    ends = num_patches * decoder_width * pixels + visible * pixels * width
    linear = 2 * (ends + (1 + visible) * width * decoder_width)
    return 3 * (encoder + decoder + linear)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done everything that it was told; a CPU has always."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_peak(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of a large matrix product of random numbers: bf16 on a GPU, float32 elsewhere; under a second.

    This is the device's practical peak, what a product of ideal shape reaches there, below the data sheet's figure.

    Args:
        device: What to measure.
        clock: In s; another than the wall's where a machine is shared.

    Returns:
        FLOP per second.

    Example:
        >>> measure_peak(torch.device("cpu")) > 1e8
        True
    """
    on_gpu = device.type == "cuda"
    size, repeats, dtype = (8192, 10, torch.bfloat16) if on_gpu else (768, 5, torch.float32)
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3 if on_gpu else 1):
        a @ b
    wait_for(device)
    started = clock()
    for _ in range(repeats):
        a @ b
    wait_for(device)
    return repeats * 2 * size**3 / (clock() - started)


class PhaseTimer:
    """Adds up the time of named phases of a step, waiting for the device after each: for profiling alone.

    Args:
        device: Where the phases run.

    Example:
        >>> timer = PhaseTimer(torch.device("cpu"))
        >>> product = timer.time("forward", lambda: torch.ones(2, 2) @ torch.ones(2, 2))
        >>> timer.table(steps=1).splitlines()[0].split()
        ['phase', 'ms', 'per', 'step', 'share']
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def time(self, phase: str, work: Callable[[], T]) -> T:
        """Do `work` and add its time to `phase`."""
        started = time.perf_counter()
        result = work()
        wait_for(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - started
        return result

    def table(self, steps: int) -> str:
        """The phases with their milliseconds per step and their shares, as text."""
        total = sum(self.seconds.values())
        rows = [
            f"{name:<12}{1000 * seconds / steps:>12.2f}{seconds / total:>10.1%}"
            for name, seconds in [*self.seconds.items(), ("together", total)]
        ]
        return "\n".join([f"{'phase':<12}{'ms per step':>12}{'share':>10}", *rows])
