r"""Multinomial logistic regression to its minimum: Newton's method by conjugate gradients with a preconditioner.

$$\frac{1}{N} \sum_i -\ln \mathrm{softmax}(W x_i + b)_{y_i} + \frac{\lambda}{2 C N} \| W \|^2$$

As scikit-learn's `LogisticRegression` has it: $\lambda = 1$, and 2 for two classes, whose one vector of weights it
penalises once. The features are principal axes, of which the first vary a thousand times more than the last. The
diagonal of the Hessian, taken as a product of each feature's mean square and each class's mean $p (1 - p)$, evens
that out. Steps are found in float32, to a share of the gradient; what they lead to is float64.
"""

import numpy as np
from scipy.special import log_softmax

MOST_STEPS = 100
_MOST_INNER_STEPS = 500
_SHORTEST = 1e-10


def fit_logistic(features: np.ndarray, targets: np.ndarray, c: float, tolerance: float) -> np.ndarray:
    """Weights and biases at the minimum.

    Args:
        features: Shape `(clips, features)`, float64, best along principal axes.
        targets: Class of each clip by a one, shape `(clips, classes)`; no class is without a clip.
        c: Inverse of the penalty, as scikit-learn's `C`.
        tolerance: Largest component of the gradient at the end.

    Returns:
        Shape `(features + 1, classes)`; the last row has the biases.

    Raises:
        ArithmeticError: if that gradient is not reached.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((60, 2))
        >>> weights = fit_logistic(features, np.eye(3)[features.argmax(axis=1)], c=10.0, tolerance=1e-9)
        >>> weights.shape, weights[0].argmax(), weights[1].argmax()
        ((3, 3), np.int64(0), np.int64(1))
    """
    count, num_classes = targets.shape
    rows = np.hstack([features, np.ones((count, 1))])
    narrow = rows.astype(np.float32)
    penalty = np.full((rows.shape[1], 1), (2.0 if num_classes == 2 else 1.0) / (c * count))
    penalty[-1] = 0.0
    squares = np.square(rows).mean(axis=0)[:, None]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(rows @ weights, axis=1)
        return float(-(targets * logs).sum() / count + (penalty * weights**2).sum() / 2), np.exp(logs)

    weights = np.zeros((rows.shape[1], num_classes))
    value, shares = loss(weights)
    for _ in range(MOST_STEPS):
        gradient = rows.T @ (shares - targets) / count + penalty * weights
        if np.abs(gradient).max() <= tolerance:
            return weights
        step = _newton_step(narrow, shares, squares, penalty, gradient)
        slope, length = float((gradient * step).sum()), 1.0
        # At the minimum the loss differs by less than its own rounding, which must not stop the last steps.
        noise = 4 * np.finfo(float).eps * abs(value)
        while (found := loss(weights + length * step))[0] > value + 1e-4 * length * slope + noise:
            length /= 2
            if length < _SHORTEST:
                raise ArithmeticError("no step lowers the loss")
        weights, (value, shares) = weights + length * step, found
    raise ArithmeticError(f"the gradient is {np.abs(gradient).max():.1e} after {MOST_STEPS} steps")


def _newton_step(
    rows: np.ndarray, shares: np.ndarray, squares: np.ndarray, penalty: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """The step to where the gradient would be zero, to a share of it that shrinks with the gradient."""
    norm = float(np.linalg.norm(gradient))
    enough = max(min(0.25, norm**0.5), 1e-4)
    diagonal = squares * (shares * (1 - shares)).mean(axis=0) + penalty
    diagonal = np.maximum(diagonal, 1e-20).astype(np.float32)
    shares, penalty = shares.astype(np.float32), penalty.astype(np.float32)
    residual = (-gradient / norm).astype(np.float32)
    step = np.zeros_like(residual)
    direction = residual / diagonal
    product = float((residual * direction).sum())
    for _ in range(_MOST_INNER_STEPS):
        moved = rows @ direction
        curved = shares * (moved - (shares * moved).sum(axis=1, keepdims=True))
        image = rows.T @ curved / len(rows) + penalty * direction
        curvature = float((direction * image).sum())
        if curvature <= 0:  # by rounding alone
            break
        step += product / curvature * direction
        residual -= product / curvature * image
        if np.linalg.norm(residual) <= enough:
            break
        scaled = residual / diagonal
        product, before = float((residual * scaled).sum()), product
        direction = scaled + product / before * direction
    return norm * step.astype(np.float64)
