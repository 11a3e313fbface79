"""Own the names by which settings and stored maps call the representations.

CONTRACT: names are stored with trained maps.
"""

from walras.maps.representations.aggregates import DeepSets, GlobalAggregate, MomentVector
from walras.maps.representations.attention_pooling import BucketizedEmbedding, PerAgentEmbedding
from walras.maps.representations.base import AbstractRepresentation
from walras.maps.representations.bottom_up import BottomUp

REPRESENTATIONS: dict[str, type[AbstractRepresentation]] = {
    "bucketized": BucketizedEmbedding,
    "per-agent": PerAgentEmbedding,
    "global": GlobalAggregate,
    "bottom-up": BottomUp,
    "deep-sets": DeepSets,
    "moments": MomentVector,
}
