"""Episodes of made-up stretches that tests of map training share: a task asks them as it asks those of worlds.

Two stretches, drawn in turn; another number draws other prices and capacities.
"""

import numpy as np
from small_maps import BUCKETS
from small_stretches import cohort_index, window

from walras.population.population import bucket_edges
from walras.train.map_task import MapEpisodes, SampledEpisode
from walras.train.settings import MapTraining

WEEKS, FIRST = 60, 30
TINY = {
    "history_width": 4,
    "future_width": 3,
    "decoder_width": 4,
    "attention_dim": 4,
    "buckets": BUCKETS,
    "weeks": WEEKS,
    "first_origin": FIRST,
    "learning_rate": 0.01,
    "clip_norm": 1.0,
    "averaged": 0.5,
    "delegates": 0,
    "assess_every": 1,
    "checkpoint_every": 1,
}


class FewEpisodes(MapEpisodes):
    """Draw one of two stretches."""

    def __init__(self, delegates: int = 0) -> None:
        """Make them up; so many of their agents are asked."""
        self.delegates = delegates
        self.stretches = [window(weeks=WEEKS, seed=seed) for seed in (0, 1)]
        self.edges = bucket_edges(np.asarray(self.stretches[0].population.demand_scale), BUCKETS)

    def identity(self):
        """Say what they follow from."""
        return {"worlds": "two made-up stretches"}

    def draw(self, number: int) -> SampledEpisode:
        """Draw for a step."""
        given = self.stretches[number % 2]
        return SampledEpisode(given, cohort_index(given, self.delegates), np.random.default_rng([number, 1]))

    def validation(self, count: int) -> list[SampledEpisode]:
        """Draw those that judge."""
        return [self.draw(1000 + number) for number in range(count)]


def tiny(**changes) -> MapTraining:
    """Set small sizes."""
    return MapTraining(**{**TINY, **changes})
