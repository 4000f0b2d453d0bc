r"""The attentive probe: a frozen encoder's tokens, pooled by a small learnt attention, then a linear classifier.

$$a_{h,i} = \mathrm{softmax}_i (w_h \cdot x_i), \qquad z_h = \sum_i a_{h,i} x_i^{(h)}, \qquad
y = W [z_1, \ldots, z_H] + b$$

Head $h$ weighs its own slice $x^{(h)}$ of the standardised tokens. With $w = 0$, where training starts, $z$ is their
mean: what this probe gains over the linear one is what choosing among tokens is worth. There are no projections of
keys and values, so it stays small: $D (H + C) + C$ parameters for tokens of width $D$ and $C$ classes.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

WEIGHT_DECAYS = (0.01, 0.1, 1.0)
"""Candidates."""

MOST_HEADS = 8
EPOCHS = 20
BATCH_SIZE = 64
LEARNING_RATE = 1e-2


class AttentivePooling(nn.Module):
    """Weighs the tokens of a clip by what they hold, then classifies their weighted means.

    The buffers `mean` and `deviation`, of each feature over the training clips' tokens, standardise the tokens.

    Args:
        hidden_size: Width of a token; the heads are as many as divide it, eight at most.
        num_classes: Classes.

    Example:
        >>> AttentivePooling(hidden_size=24, num_classes=5)(torch.randn(2, 7, 24), torch.ones(2, 7)).shape
        torch.Size([2, 5])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.num_heads = math.gcd(hidden_size, MOST_HEADS)
        self.queries = nn.Parameter(torch.zeros(self.num_heads, hidden_size))  # the heads differ by their slices
        self.weight = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("deviation", torch.ones(hidden_size))

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Weighted means, shape `(batch, hidden_size)`, of `tokens` where `mask`, `(batch, tokens)`, is 1."""
        # The standardisation commutes with a weighted mean, and a shift of all scores leaves the softmax as it is:
        # so no token needs to be standardised itself.
        scores = tokens @ (self.queries / self.deviation).T  # (B, N, heads)
        weights = scores.masked_fill(mask[..., None] == 0, -torch.inf).softmax(dim=1)
        slices = tokens.unflatten(-1, (self.num_heads, -1))  # (B, N, heads, D / heads)
        return (torch.einsum("bnh,bnhd->bhd", weights, slices).flatten(1) - self.mean) / self.deviation

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape `(batch, num_classes)`, of `tokens`, shape `(batch, tokens, hidden_size)`."""
        return nn.functional.linear(self.pool(tokens, mask), self.weight, self.bias)


def prepare_attentive(
    tokens: Sequence[Tensor], labels: np.ndarray, num_classes: int, device: str | torch.device = "cpu"
) -> Callable[[float], Callable[[Sequence[Tensor]], np.ndarray]]:
    """`AttentivePooling` by a fixed budget: 20 epochs of AdamW at batch 64 with a cosine schedule.

    The standardisation is fitted on what is being trained on. Nothing is drawn but the order of the clips, by a
    generator of its own: a call repeats bit for bit.

    Args:
        tokens: For each clip, shape `(its tokens, hidden_size)`, of any floating type.
        labels: Classes `(clips,)`, or zeros and ones `(clips, classes)`, which are learnt by binary cross-entropy.
        num_classes: How many there are.
        device: Where to train.

    Returns:
        What trains with a weight decay; what it returns gives logits `(clips, classes)` of tokens of other clips.

    Example:
        >>> labels = np.tile([0, 1], 30)
        >>> tokens = [torch.full((3, 4), float(label)) for label in labels]
        >>> predict = prepare_attentive(tokens, labels, num_classes=2)(0.1)
        >>> predict(tokens[:2]).argmax(axis=1).tolist()
        [0, 1]
    """
    known, targets = [clip.to(device) for clip in tokens], torch.from_numpy(labels).to(device)
    mean, deviation = _statistics(known)

    def fit(weight_decay: float) -> Callable[[Sequence[Tensor]], np.ndarray]:
        probe = AttentivePooling(len(mean), num_classes).to(device)
        probe.mean.copy_(mean)
        probe.deviation.copy_(deviation)
        _train(probe, known, targets, weight_decay)

        @torch.no_grad()
        def predict(asked: Sequence[Tensor]) -> np.ndarray:
            clips = [clip.to(device) for clip in asked]
            parts = [probe(*_padded(clips[start : start + BATCH_SIZE])) for start in range(0, len(clips), BATCH_SIZE)]
            return torch.cat(parts).cpu().numpy()

        return predict

    return fit


def _statistics(tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature over all tokens of all clips, one clip in memory at a time."""
    count = sum(len(clip) for clip in tokens)
    mean = torch.stack([clip.sum(dim=0, dtype=torch.float64) for clip in tokens]).sum(dim=0) / count
    squares = torch.stack([(clip - mean).square().sum(dim=0) for clip in tokens]).sum(dim=0)
    deviation = (squares / count).sqrt()
    varies = deviation > 1e-5 * deviation.max()  # less is rounding, as in `probes.standardiser`
    return mean.float(), torch.where(varies, deviation, 1.0).float()


def _padded(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tokens `(batch, tokens, hidden_size)` in float32 and their mask `(batch, tokens)`."""
    tokens = pad_sequence(list(clips), batch_first=True).float()
    lengths = torch.tensor([len(clip) for clip in clips], device=tokens.device)
    return tokens, torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]


def _train(probe: AttentivePooling, tokens: Sequence[Tensor], targets: Tensor, weight_decay: float) -> None:
    optimizer = torch.optim.AdamW(probe.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)
    num_steps = EPOCHS * math.ceil(len(tokens) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_steps)
    loss_of = nn.functional.cross_entropy if targets.ndim == 1 else nn.functional.binary_cross_entropy_with_logits
    order = np.random.default_rng(0)
    for _ in range(EPOCHS):
        shuffled = order.permutation(len(tokens))
        for start in range(0, len(tokens), BATCH_SIZE):
            chosen = shuffled[start : start + BATCH_SIZE].tolist()
            optimizer.zero_grad()
            loss_of(probe(*_padded([tokens[clip] for clip in chosen])), targets[chosen]).backward()
            optimizer.step()
            schedule.step()
