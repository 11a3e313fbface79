"""Own the seconds that compiled functions take, compilation left out.

FREE: seconds spent deciding are measured with it.
"""

import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


class TimedJit:
    """Compile a function, and say how long each call took; a call that had to compile is made once more."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Keep the function, which must be pure."""
        self.traced = 0

        def counted(*given: Any) -> Any:
            self.traced += 1  # a trace, since compiled calls do not come by here
            return function(*given)

        self._compiled = eqx.filter_jit(counted)

    def __call__(self, *given: Any) -> tuple[Any, float]:
        """Return the function's answer and the seconds it took."""
        before = self.traced
        found = self._clocked(given)
        return self._clocked(given) if self.traced > before else found

    def _clocked(self, given: tuple[Any, ...]) -> tuple[Any, float]:
        started = time.perf_counter()
        answer = jax.block_until_ready(self._compiled(*given))
        return answer, time.perf_counter() - started
