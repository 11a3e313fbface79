"""Own the proof that the demand laws' quantiles are those of scipy, within what their formulas promise.

OPEN: a new law joins `LAWS` and states its tolerance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import gamma, norm

from walras.policies.base_stock import AbstractDemandDistribution, GammaDemand, NormalDemand

RATIOS = np.linspace(0.01, 0.99, 99)
LAWS = [NormalDemand(), GammaDemand()]
by_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


def quantiles(law: AbstractDemandDistribution, mean: float, sd: float, ratios: np.ndarray = RATIOS) -> np.ndarray:
    full = [jnp.asarray(np.broadcast_to(x, ratios.shape), jnp.float32) for x in (ratios, mean, sd)]
    return np.asarray(law.quantile(*full), float)


@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (50.0, 8.0), (0.2, 3.0), (1e5, 1e4)])
def test_normal_quantile_is_exact(mean: float, sd: float) -> None:
    np.testing.assert_allclose(
        quantiles(NormalDemand(), mean, sd), norm.ppf(RATIOS, mean, sd), rtol=1e-5, atol=1e-5 * sd
    )


@pytest.mark.parametrize(
    ("shape", "within"), [(0.3, 0.16), (0.5, 0.075), (1, 0.03), (2, 0.02), (5, 0.011), (50, 0.002)]
)
@pytest.mark.parametrize("mean", [0.1, 7.0])
def test_gamma_quantile_is_near(shape: float, within: float, mean: float) -> None:
    """The cube-root formula errs by at most a share of the standard deviation, smaller for smoother demand."""
    sd = mean / np.sqrt(shape)
    exact = gamma.ppf(RATIOS, shape, scale=mean / shape)
    np.testing.assert_allclose(quantiles(GammaDemand(), mean, sd), exact, atol=within * sd)


@by_law
@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (0.3, 1.2), (20.0, 0.5), (1.0, 10.0)])
def test_quantiles_rise_with_the_ratio(law: AbstractDemandDistribution, mean: float, sd: float) -> None:
    found = quantiles(law, mean, sd)
    assert (np.diff(found) >= 0).all()
    assert found[-1] > found[len(found) // 2]
    assert isinstance(law, NormalDemand) or (found >= 0).all()


@by_law
def test_demand_that_never_varies_is_its_mean(law: AbstractDemandDistribution) -> None:
    np.testing.assert_allclose(quantiles(law, 7.0, 0.0), 7.0, rtol=1e-6)
    np.testing.assert_array_equal(quantiles(law, 0.0, 0.0), 0.0)


@by_law
@pytest.mark.parametrize(("mean", "sd"), [(5.0, 1.6), (5.0, 0.0), (0.0, 0.0), (0.0, 2.0), (1e-6, 5.0), (1e6, 1.0)])
def test_gradients_are_finite_and_never_negative_in_the_ratio(
    law: AbstractDemandDistribution, mean: float, sd: float
) -> None:
    arguments = [jnp.asarray(np.broadcast_to(x, RATIOS.shape), jnp.float32) for x in (RATIOS, mean, sd)]
    slopes = jax.grad(lambda *a: law.quantile(*a).sum(), argnums=(0, 1, 2))(*arguments)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert (np.asarray(slopes[0]) >= 0).all()


@by_law
def test_the_gradient_in_the_ratio_is_the_derivative(law: AbstractDemandDistribution) -> None:
    ratios = np.array([0.05, 0.3, 0.5, 0.8, 0.95])
    arguments = [jnp.asarray(np.broadcast_to(x, ratios.shape), jnp.float32) for x in (ratios, 12.0, 5.0)]
    slope = np.asarray(jax.grad(lambda r: law.quantile(r, *arguments[1:]).sum())(arguments[0]))
    step = 2.0**-9
    either = [quantiles(law, 12.0, 5.0, ratios + s) for s in (step, -step)]
    np.testing.assert_allclose(slope, (either[0] - either[1]) / (2 * step), rtol=3e-3)
