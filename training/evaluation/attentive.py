r"""The attentive probe: a frozen encoder's tokens, pooled by a small learnt attention, then a linear classifier.

$$a_{h,i} = \mathrm{softmax}_i (w_h \cdot x_i), \qquad z_h = \sum_i a_{h,i} x_i^{(h)}, \qquad
y = W [z_1, \ldots, z_H] + b$$

Head $h$ weighs its own slice $x^{(h)}$ of the standardised tokens. With $w = 0$, where training starts, $z$ is their
mean: what this probe gains over the linear one is what choosing among tokens is worth. There are no projections of
keys and values, so it stays small: $D (H + C) + C$ parameters for tokens of width $D$ and $C$ classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

WEIGHT_DECAYS = (0.01, 0.1, 1.0)
"""Candidates; the one that does best on a fold of the training clips is taken."""

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


def attentive_probe(
    tokens: Sequence[Tensor], labels: np.ndarray, folds: np.ndarray, *, device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """Accuracy of `AttentivePooling` by cross-validation over given folds.

    A fixed budget, 20 epochs of AdamW at batch 64 with a cosine schedule. In each round the weight decay is chosen by
    the accuracy on the fold that follows the test fold, trained on the others; then all training folds are trained on
    with it. The standardisation is fitted on what is being trained on, and the test fold is used once. Nothing is
    drawn but the order of the clips, by a generator of its own: a call repeats bit for bit.

    Args:
        tokens: For each clip, shape `(its tokens, hidden_size)`, of any floating type.
        labels: Class of each clip, shape `(clips,)`.
        folds: Fold of each clip, shape `(clips,)`; three or more different ones.
        device: Where to train.

    Returns:
        What `linear_probe` returns, and `weight_decays`, as chosen in each round.

    Raises:
        ValueError: if there are fewer than three folds: one to test on, one to choose on, one to train on.

    Example:
        >>> labels = np.tile([0, 1], 30)
        >>> tokens = [torch.full((3, 4), float(label)) for label in labels]
        >>> attentive_probe(tokens, labels, np.repeat([1, 2, 3], 20))["fold_accuracies"]
        [1.0, 1.0, 1.0]
    """
    numbers = np.unique(folds)
    if len(numbers) < 3:
        raise ValueError(
            f"An attentive probe needs at least 3 folds (to test on, to choose the weight decay on, to train on), and "
            f"got {len(numbers)}. Give the benchmark's own folds."
        )
    classes, targets = np.unique(labels, return_inverse=True)
    clips = _Clips([clip.to(device) for clip in tokens], torch.from_numpy(targets).to(device), len(classes))
    accuracies, chosen = [], []
    rounds = tqdm(enumerate(numbers), total=len(numbers), desc="Attentive probe", unit="fold", disable=None)
    for position, test_fold in rounds:
        held_out = numbers[(position + 1) % len(numbers)]
        test, held = (np.flatnonzero(folds == fold) for fold in (test_fold, held_out))
        inner = np.flatnonzero((folds != test_fold) & (folds != held_out))
        scores = {decay: _accuracy(clips, inner, held, decay) for decay in WEIGHT_DECAYS}
        chosen.append(max(scores, key=lambda decay: scores[decay]))
        accuracies.append(_accuracy(clips, np.flatnonzero(folds != test_fold), test, chosen[-1]))
    return {
        "fold_accuracies": accuracies,
        "mean": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)),
        "weight_decays": chosen,
    }


class _Clips:
    """Tokens of many clips with their classes, handed out in padded batches."""

    def __init__(self, tokens: Sequence[Tensor], targets: Tensor, num_classes: int) -> None:
        self.tokens, self.targets, self.num_classes = tokens, targets, num_classes

    def statistics(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each feature over all tokens of some clips, one clip in memory at a time."""
        count = sum(len(self.tokens[index]) for index in chosen)
        mean = torch.stack([self.tokens[index].sum(dim=0, dtype=torch.float64) for index in chosen]).sum(dim=0) / count
        squares = torch.stack([(self.tokens[index] - mean).square().sum(dim=0) for index in chosen]).sum(dim=0)
        deviation = (squares / count).sqrt()
        return mean.float(), torch.where(deviation > 0, deviation, 1.0).float()

    def batch(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `(batch, tokens, hidden_size)`, their mask `(batch, tokens)` and the clips' classes."""
        tokens = pad_sequence([self.tokens[index] for index in chosen], batch_first=True).float()
        lengths = torch.tensor([len(self.tokens[index]) for index in chosen], device=tokens.device)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return tokens, mask, self.targets[torch.from_numpy(chosen).to(tokens.device)]


def _accuracy(clips: _Clips, train: np.ndarray, test: np.ndarray, weight_decay: float) -> float:
    """Train on some clips, test on others."""
    probe = _fit(clips, train, weight_decay)
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), BATCH_SIZE):
            tokens, mask, targets = clips.batch(test[start : start + BATCH_SIZE])
            right += int((probe(tokens, mask).argmax(dim=1) == targets).sum())
    return right / len(test)


def _fit(clips: _Clips, train: np.ndarray, weight_decay: float) -> AttentivePooling:
    mean, deviation = clips.statistics(train)
    probe = AttentivePooling(len(mean), clips.num_classes).to(mean.device)
    probe.mean.copy_(mean)
    probe.deviation.copy_(deviation)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=LEARNING_RATE, weight_decay=weight_decay)
    num_steps = EPOCHS * math.ceil(len(train) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_steps)
    order = np.random.default_rng(0)
    for _ in range(EPOCHS):
        shuffled = order.permutation(train)
        for start in range(0, len(train), BATCH_SIZE):
            tokens, mask, targets = clips.batch(shuffled[start : start + BATCH_SIZE])
            optimizer.zero_grad()
            nn.functional.cross_entropy(probe(tokens, mask), targets).backward()
            optimizer.step()
            schedule.step()
    return probe
