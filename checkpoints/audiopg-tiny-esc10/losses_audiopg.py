"""What the models are trained on: the error of redrawn patches, and the losses of a classifier."""

import torch
from torch import Tensor, nn


def standardize_patches(patches: Tensor) -> Tensor:
    """Standardise each patch by its own mean and unbiased variance (AudioPG, section 4).

    Args:
        patches: Shape `(batch, patches, patch values)`.

    Returns:
        The same shape; constant patches become zero, because 1e-6 is added to the variance.

    Example:
        >>> standardize_patches(torch.tensor([[[1.0, 2.0, 3.0]]])).round(decimals=3).tolist()
        [[[-1.0, 0.0, 1.0]]]
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def reconstruction_loss(logits: Tensor, patches: Tensor, mask: Tensor, *, norm_pix_loss: bool = True) -> Tensor:
    """Mean squared error of the predicted patches, averaged over the masked ones.

    Args:
        logits: Predictions, shape `(batch, patches, patch values)`.
        patches: The true patches, same shape.
        mask: 1 at patches to score, shape `(batch, patches)`.
        norm_pix_loss: Whether to compare with standardised patches.

    Returns:
        A float32 scalar; 0 when no patch is masked.

    Example:
        >>> mask = torch.tensor([[0.0, 1.0]])
        >>> reconstruction_loss(torch.ones(1, 2, 4), torch.zeros(1, 2, 4), mask).item()
        1.0
    """
    target = patches.float()
    if norm_pix_loss:
        target = standardize_patches(target)
    error = (logits.float() - target).square().mean(dim=-1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """Compute the loss of a classifier, soft labels (mixup, label smoothing) included.

    | `problem_type` | labels | loss |
    |---|---|---|
    | single_label_classification, or None | class numbers `(batch,)` | cross-entropy |
    | single_label_classification, or None | probabilities `(batch, num_labels)`, float | soft cross-entropy |
    | multi_label_classification | zeros and ones `(batch, num_labels)` | binary cross-entropy |
    | regression, or None with one label | numbers `(batch,)` or `(batch, num_labels)` | mean squared error |

    Unlike transformers' own loss, float labels do not turn a model without problem type into a multi-label one: rows
    that are no probabilities, as several labels at once, are refused.

    Args:
        logits: Shape `(batch, num_labels)`.
        labels: See the table.
        problem_type: See the table; None chooses by the number of labels.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: if the labels fit no row of the table.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> hard = classification_loss(logits, torch.tensor([0]))
        >>> torch.equal(hard, classification_loss(logits, torch.tensor([[1.0, 0.0]])))
        True
    """
    logits = logits.float()
    labels = labels.to(logits.device)
    if problem_type is None:
        problem_type = "regression" if logits.shape[-1] == 1 else "single_label_classification"
    if problem_type == "regression":
        return nn.functional.mse_loss(logits, _same_shape(labels, logits).float())
    if problem_type == "multi_label_classification":
        return nn.functional.binary_cross_entropy_with_logits(logits, _same_shape(labels, logits).float())
    if problem_type != "single_label_classification":
        raise ValueError(
            "`problem_type` must be single_label_classification, multi_label_classification or regression, got "
            f"{problem_type!r}: set `config.problem_type` to one of them."
        )
    if labels.is_floating_point():
        return nn.functional.cross_entropy(logits, _probabilities(_same_shape(labels, logits).float()))
    if labels.ndim != 1:
        raise ValueError(
            "Whole-number labels must have shape (batch,) for single-label classification, got "
            f"{tuple(labels.shape)}: "
            'for several labels per clip set `config.problem_type = "multi_label_classification"`.'
        )
    return nn.functional.cross_entropy(logits, labels)


def _probabilities(labels: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # values cannot be looked at there
        return labels
    wrong = ~(((labels.sum(dim=-1) - 1).abs() < 0.01) & (labels >= 0).all(dim=-1))  # the margin is for bfloat16
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise ValueError(
            "Float labels of single-label classification must be probabilities that sum to 1, got a sum of "
            f"{labels[row].sum().item():g} in row {row}: for several labels per clip, or none, set "
            '`config.problem_type = "multi_label_classification"`.'
        )
    return labels


def _same_shape(labels: Tensor, logits: Tensor) -> Tensor:
    if labels.numel() == logits.numel() and logits.shape[-1] == 1:
        return labels.reshape(logits.shape)
    if labels.shape != logits.shape:
        raise ValueError(
            f"Labels of this kind must have the shape of the logits, {tuple(logits.shape)}, got "
            f"{tuple(labels.shape)}: check `config.num_labels` and `config.problem_type`."
        )
    return labels


__all__ = ["classification_loss", "reconstruction_loss", "standardize_patches"]
