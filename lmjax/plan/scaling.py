"""Loss against parameters and tokens, with how sure one can be of it.

L(N, D) = E + a (N / N0)^-alpha + b (D / D0)^-beta is the form of Hoffmann et al. 2022 (equation 2);
N0 and D0 are the geometric means of what was measured, so that a and b are nats of loss there. Few
small runs do not settle five numbers, so the answer is a posterior and not a point:

- alpha and beta are log-normal around 0.34 and 0.32, what Hoffmann et al. 2022 and, with the same
  data, Besiroglu et al. 2024 found; 90 % of it lies between 0.13 and 0.9.
- E, a and b are anything above 0 up to some times the losses.
- Runs differ from the form by normal noise, whose deviation is inferred, too: log-normal around
  0.02 nats, 90 % between 0.004 and 0.1.

Exponents and noise lie on a grid. For each of its cells the posterior of E, a, b is a normal one in
closed form, cut at 0: it is drawn from, and what is negative is thrown away, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmjax.errors import UserError

LEVEL = 0.9  # of all intervals

_ALPHA, _BETA, _SPREAD = 0.34, 0.32, 0.6  # medians, and deviation of their logarithms
_NOISE, _NOISE_SPREAD = 0.02, 1.0
_WIDE = 2.0  # deviation of E, a and b before they are cut at 0, in largest losses
_DRAWS, _LEAST = 16_000, 400


@dataclass(frozen=True)
class Points:
    """Finished runs, S of them.

    Attributes:
      params: parameters, float [S].
      tokens: that were trained on, float [S].
      loss: held-out, in nats, float [S].
    """

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Fit:
    """Draws of the posterior, K of them.

    Attributes:
      params, tokens: N0 and D0.
      coefficients: E, a and b, float [K, 3].
      exponents: alpha and beta, float [K, 2].
      noise: float [K].
    """

    params: float
    tokens: float
    coefficients: np.ndarray
    exponents: np.ndarray
    noise: np.ndarray

    def losses(self, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The form's loss of models of these sizes, float [K, ...], without the noise of a run."""
        small, short = self.parts(params, tokens)
        return self._column(self.coefficients[:, 0], small) + small + short

    def parts(self, params: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is lost by too small a model and by too few tokens, float [K, ...] each."""
        logs = np.log(np.asarray(params) / self.params), np.log(np.asarray(tokens) / self.tokens)
        logs = [
            np.broadcast_to(each, np.broadcast_shapes(*(x.shape for x in logs)))[None]
            for each in logs
        ]
        return tuple(
            self._column(self.coefficients[:, 1 + i], each)
            * np.exp(-self._column(self.exponents[:, i], each) * each)
            for i, each in enumerate(logs)
        )

    def interval(
        self, params: np.ndarray, tokens: np.ndarray, *, of_run: bool = False, level: float = LEVEL
    ) -> np.ndarray:
        """Lower end, median and upper end, float [3, ...].

        Args:
          params, tokens: of the models.
          of_run: whether for the loss of one more run, noise and all; False: for the form.
          level: share of the posterior between the ends.
        """
        losses = self.losses(params, tokens)
        if of_run:
            noise = np.random.default_rng(1).standard_normal(losses.shape)
            losses = losses + self._column(self.noise, losses) * noise
        return np.quantile(losses, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)

    @staticmethod
    def _column(values: np.ndarray, like: np.ndarray) -> np.ndarray:
        return values.reshape(-1, *[1] * (like.ndim - 1))


def fit(points: Points, seed: int = 0) -> Fit:
    """The posterior of the form's numbers.

    Args:
      points: of at least three sizes and two lengths.
      seed: of the draws.

    Raises:
      UserError: hardly any numbers of the form above 0 go with these losses: they do not fall.
    """
    n0, d0 = (float(np.exp(np.mean(np.log(each)))) for each in (points.params, points.tokens))
    alphas, betas, noises, prior = _grid()
    x_ABSC = _columns(points, n0, d0, alphas, betas)
    mean_ABNC, precision_ABNCC, evidence_ABN = _conditional(x_ABSC, points.loss, noises)
    logs = (evidence_ABN + prior).ravel()
    shares = np.exp(logs - logs.max())
    rng = np.random.default_rng(seed)
    cells = rng.choice(len(shares), _DRAWS, p=shares / shares.sum())
    drawn = _draw(rng, mean_ABNC.reshape(-1, 3)[cells], precision_ABNCC.reshape(-1, 3, 3)[cells])
    good = (drawn > 0).all(axis=1)
    if good.sum() < _LEAST:
        raise UserError(
            "the losses of the ladder do not fall with size and tokens as a power law does "
            f"({good.mean():.1%} of the fits make sense); train longer rungs on more text"
        )
    a, b, n = np.unravel_index(cells[good], evidence_ABN.shape)
    exponents = np.stack([alphas[a], betas[b]], axis=1)
    return Fit(n0, d0, drawn[good], exponents, noises[n])


def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Exponents and noises, each even in its logarithm, and the log prior of every cell."""
    steps = np.linspace(-2.5, 2.5, 25)
    alphas, betas = (median * np.exp(_SPREAD * steps) for median in (_ALPHA, _BETA))
    noises = _NOISE * np.exp(_NOISE_SPREAD * steps[::2])
    squares = -(steps**2) / 2
    prior = squares[:, None, None] + squares[None, :, None] + squares[::2][None, None, :]
    return alphas, betas, noises, prior


def _columns(
    points: Points, n0: float, d0: float, alphas: Sequence[float], betas: Sequence[float]
) -> np.ndarray:
    """What E, a and b are multiplied by, float [A, B, S, 3]."""
    by_size = np.exp(-np.log(points.params / n0) * np.asarray(alphas)[:, None])
    by_length = np.exp(-np.log(points.tokens / d0) * np.asarray(betas)[:, None])
    shape = (len(alphas), len(betas), len(points.loss))
    parts = np.ones(shape), by_size[:, None], by_length[None]
    return np.stack([np.broadcast_to(part, shape) for part in parts], axis=-1)


def _conditional(
    x_ABSC: np.ndarray, loss_S: np.ndarray, noises: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of E, a, b given exponents and noise: mean, precision, and the log evidence of the cell."""
    square_N = (noises**2)[:, None, None]
    xx_ABCC = np.einsum("absc,absd->abcd", x_ABSC, x_ABSC)
    xy_ABC = np.einsum("absc,s->abc", x_ABSC, loss_S)
    before = np.eye(3) / (_WIDE * loss_S.max()) ** 2
    precision = xx_ABCC[:, :, None] / square_N + before
    scaled = xy_ABC[:, :, None] / square_N[..., 0]
    mean = np.linalg.solve(precision, scaled[..., None])[..., 0]
    x_mean = np.einsum("absc,abnc->abns", x_ABSC, mean)
    rest = ((loss_S - x_mean) ** 2).sum(axis=-1) / noises**2
    rest += np.einsum("abnc,cd,abnd->abn", mean, before, mean)
    logdet = np.linalg.slogdet(precision)[1]
    evidence = -(rest + logdet) / 2 - len(loss_S) * np.log(noises)
    return mean, precision, evidence


def _draw(rng: np.random.Generator, mean_KC: np.ndarray, precision_KCC: np.ndarray) -> np.ndarray:
    """One draw of each normal distribution."""
    factor = np.linalg.cholesky(precision_KCC)
    normal = rng.standard_normal(mean_KC.shape)[..., None]
    return mean_KC + np.linalg.solve(np.swapaxes(factor, 1, 2), normal)[..., 0]
