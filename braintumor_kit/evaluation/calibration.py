"""Temperature scaling: one number that makes a model's probabilities mean what they say (Guo et al. 2017, section 4.2,
arXiv 1706.04599)."""

import numpy as np
from numpy.typing import NDArray

COLDEST, HOTTEST = 0.05, 20.0
_TINY = 1e-12


def negative_log_likelihood(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Mean of -log p(true class), in nats; probabilities are held above 1e-12."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def scaled(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """softmax(log p / temperature) of rows (N, K): the order of the classes stays.

    Since logits differ from log p by a constant a row, this is what scaling the logits gives.
    """
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The temperature with the least negative log-likelihood, between 0.05 and 20.

    Where every answer is right, ever colder probabilities would be ever likelier, and the first mistake on other slices
    would cost any price: nothing can be learnt then, and the temperature is 1.

    Args:
        labels: class numbers (N,).
        probabilities: (N, K), of slices that the weights were not fitted to.
    """

    from scipy.optimize import minimize_scalar

    if (probabilities.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(labels, scaled(probabilities, float(np.exp(log_temperature))))

    bounds = (float(np.log(COLDEST)), float(np.log(HOTTEST)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x))
