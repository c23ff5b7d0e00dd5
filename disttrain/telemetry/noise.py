"""How much of a gradient is noise, from norms that the replicas have anyway.

Arithmetic on the host, on a few numbers a recorded step. Who measures the norms, and where the
result is written, is not told here.
"""

import numpy as np

_NAN = float("nan")


class NoiseScale:
    """The gradient noise scale of McCandlish et al. 2018 (arXiv:1812.06162).

    With the true gradient G and the covariance of the gradients of single examples, whose trace is
    S, the mean gradient over b examples has `E|g|^2 = |G|^2 + S / b`. The noise scale S / |G|^2, in
    examples, is the batch size at which noise and gradient are equally long (`B_simple`, section
    2). Two batch sizes suffice to solve for both unknowns (appendix A.1): here n replicas that
    hold b_i examples of a global batch of B. Weighted by their examples, as their gradients are in
    the global one, the squared norms of the replicas are in the mean

        E[sum(b_i / sum(b) * |g_i|^2)] = |G|^2 + S * n / sum(b)

    and with `E|g|^2 = |G|^2 + S / B` of the global gradient, unbiased estimates are

        S     = (sum(b_i / sum(b) * |g_i|^2) - |g|^2) / (n / sum(b) - 1 / B)
        |G|^2 = |g|^2 - S / B

    For equal b_i these are the paper's (A.2). Where sum(b) = B, this S is the one of an analysis of
    variance, than which nothing unbiased is more precise if the gradients are normally distributed.

    The ratio of two noisy estimates is biased, and a single step's `|G|^2` often is negative. So,
    as in the paper, both are averaged over steps before one is divided by the other. Averages are
    exponential, and each step counts by its examples: an epoch's last, small batch would drown the
    others otherwise. They are divided by the sum of their weights, so that the first steps give
    plain means instead of being pulled towards zero.

    Args:
        decay: What the past keeps of its weight at each measured step, from 0 to below 1. By
            default a step counts 1 / e after a hundred more: long enough that |G|^2 is told from
            noise of some times its size, short enough to follow a training.

    Raises:
        ValueError: `decay` is outside of [0, 1).
    """

    def __init__(self, decay=0.99):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), not {decay!r}")
        self._decay = decay
        self._weight = 0.0
        self._squared_gradient = 0.0
        self._noise = 0.0

    def update(self, local_norms, local_examples, global_norm, global_examples):
        """Takes in a step.

        Args:
            local_norms: `[replicas]`, the L2 norm of the mean gradient over each replica's own
                examples, unscaled and not clipped. Any value where there are none.
            local_examples: `[replicas]`, the number of examples of each; 0 or NaN for none.
            global_norm: L2 norm of the mean gradient over the global batch.
            global_examples: Examples of the global batch.

        Returns:
            `value`, a float; NaN if this step cannot be measured, because fewer than two replicas
            had examples or a norm is not finite. Such a step leaves the averages as they were.
        """
        norms = np.asarray(local_norms, np.float64).ravel()
        examples = np.asarray(local_examples, np.float64).ravel()
        present = examples > 0
        norms, examples = norms[present], examples[present]
        known = np.asarray([*norms, *examples, global_norm, global_examples], np.float64)
        if len(norms) < 2 or not np.isfinite(known).all() or global_examples <= 0:
            return _NAN
        whole = float(global_examples)
        apart = len(examples) / examples.sum() - 1 / whole
        if apart <= 0:
            return _NAN
        squared_norm = float(global_norm) ** 2
        noise = (float(np.average(norms**2, weights=examples)) - squared_norm) / apart
        self._weight = self._decay * self._weight + whole
        self._noise = self._decay * self._noise + whole * noise
        self._squared_gradient = self._decay * self._squared_gradient + (
            whole * squared_norm - noise
        )
        return self.value

    @property
    def squared_gradient(self):
        """The averaged estimate of |G|^2, a float that may be negative; NaN before a first step."""
        return self._squared_gradient / self._weight if self._weight else _NAN

    @property
    def noise(self):
        """The averaged estimate of S, a float; NaN before a first step."""
        return self._noise / self._weight if self._weight else _NAN

    @property
    def value(self):
        """S / |G|^2 in examples, a float.

        NaN where the averaged |G|^2 is not above 0. The gradient cannot be told from its noise
        there, so the noise scale is many times the batch, but a number would be made up.
        """
        squared, noise = self.squared_gradient, self.noise
        # Equal gradients on all replicas leave nothing but rounding, of either sign.
        return max(noise, 0.0) / squared if squared > 0 else _NAN

    @property
    def critical_batch_size(self):
        """The batch size in examples that trades steps for examples evenly, a float or NaN.

        A training with it takes about twice the fewest possible steps and twice the fewest possible
        examples; far below it more replicas nearly divide the number of steps, far above it they
        buy little. The paper finds `B_crit ~ B_noise` (section 2), and `B_noise`, which weighs
        directions by their curvature, within a factor of a few of `value`. So this is `value`: an
        order of magnitude, no bound.
        """
        return self.value
