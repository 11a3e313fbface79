"""The small training that tests start, kill and start again: a line through points, by Adam.

Run as a program: `fit_run.py FOLDER [--kill-at MOMENT]`; a moment is a step, or just before or after a file
reaches its place or the disk.
"""

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from walras.train.loop import TrainingTask, TrainResult, train
from walras.train.settings import TrainSettings

SETTINGS = TrainSettings(steps=120, seed=3, assess_every=10, patience=5, checkpoint_every=7, keep=2)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))


def points(seed: int, count: int) -> tuple[jax.Array, jax.Array]:
    """Draw points near a line."""
    drawn = np.random.default_rng(seed)
    at = drawn.normal(size=(count, 3)).astype(np.float32)
    noise = drawn.normal(size=count).astype(np.float32)
    return jnp.asarray(at), jnp.asarray(at @ np.array([1, -2, 0.5], np.float32) + noise)


class Carry(eqx.Module):
    """Hold what a step starts from."""

    line: eqx.nn.Linear
    optimizer: Any
    key: jax.Array


class LineTask(TrainingTask):
    """Put a line through points."""

    kind = "line"

    def __init__(self, rate: float = 0.1, hook: Callable[[int], None] = lambda number: None) -> None:
        self.rate, self.hook = rate, hook
        self.train, self.held_out = points(0, 64), points(1, 32)
        self.looks = 0

    def identity(self) -> dict[str, Any]:
        return {"data": {"points": 64, "rate": self.rate}}

    def begin(self, seed: int) -> Carry:
        line = eqx.nn.Linear(3, 1, key=jax.random.key(seed))
        return Carry(line, OPTIMIZER.init(eqx.filter(line, eqx.is_array)), jax.random.key(seed))

    def step(self, carry: Carry, number: int) -> tuple[Carry, dict[str, Any]]:
        self.hook(number)
        return take_step(carry, np.int32(number), *self.train)

    def validate(self, carry: Carry) -> dict[str, Any]:
        self.looks += 1
        return {"held_out_loss": loss_of(carry.line, *self.held_out)}

    def parameters(self, carry: Carry) -> eqx.nn.Linear:
        return carry.line


@eqx.filter_jit
def loss_of(line: eqx.nn.Linear, at: jax.Array, there: jax.Array) -> jax.Array:
    """Return the mean squared distance."""
    return jnp.mean((jax.vmap(line)(at)[:, 0] - there) ** 2)


@eqx.filter_jit
def take_step(carry: Carry, number: jax.Array, at: jax.Array, there: jax.Array) -> tuple[Carry, dict[str, Any]]:
    """Take one step of Adam on points drawn by its number."""
    drawn = jax.random.choice(jax.random.fold_in(carry.key, number), at.shape[0], (8,))
    loss, slope = eqx.filter_value_and_grad(loss_of)(carry.line, at[drawn], there[drawn])
    change, optimizer = OPTIMIZER.update(slope, carry.optimizer)
    return Carry(eqx.apply_updates(carry.line, change), optimizer, carry.key), {"loss": loss, "number": number}


def leaves(fitted: TrainResult) -> list[bytes]:
    """Give the bits that a training ended with."""
    arrays = jax.tree.leaves((fitted.parameters, fitted.state.line, fitted.state.optimizer))
    return [np.asarray(array).tobytes() for array in arrays if eqx.is_array(array)]


class Moments:
    """Count the moments of a run, and kill the process at one of them as the system would."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0

    def __call__(self, *_: Any) -> None:
        """Count one."""
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Count before and after a call."""

        def counted(*args: Any, **named: Any) -> Any:
            self()
            result = call(*args, **named)
            self()
            return result

        return counted


def main() -> None:
    """Train, or go on; say how many moments there were."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int, default=0)
    given = parser.parse_args()
    moments = Moments(given.kill_at)
    os.replace, os.fsync, os.unlink = moments.around(os.replace), moments.around(os.fsync), moments.around(os.unlink)
    fitted = train(LineTask(hook=moments), SETTINGS, given.folder)
    (given.folder / "bits").write_bytes(b"".join(leaves(fitted)))
    print(moments.count, flush=True)


if __name__ == "__main__":
    main()
