"""The suite's own checks are switched on: shapes, types and silent broadcasting."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from walras.data.panel import Panel
from walras.errors import one_line


def test_axes_that_do_not_meet_are_refused():
    weeks = np.array(["2024-01-01"], dtype="datetime64[D]")
    with pytest.raises(TypeCheckError):
        Panel(np.array(["a"]), weeks, units=np.zeros((1, 1)), on_sale=np.zeros((2, 1), dtype=bool))


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError):
        one_line(3)


def test_silent_broadcasting_is_refused():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((20, 1)) + jnp.ones(20)
