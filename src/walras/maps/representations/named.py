"""Own the names by which settings and stored maps call the representations.

CONTRACT: names are stored with trained maps.
"""

from walras.maps.representations.base import AbstractRepresentation
from walras.maps.representations.bottom_up import BottomUp
from walras.maps.representations.bucketized import BucketizedEmbedding
from walras.maps.representations.deep_sets import DeepSets
from walras.maps.representations.global_aggregate import GlobalAggregate
from walras.maps.representations.moments import MomentVector
from walras.maps.representations.per_agent import PerAgentEmbedding

REPRESENTATIONS: dict[str, type[AbstractRepresentation]] = {
    "bucketized": BucketizedEmbedding,
    "per-agent": PerAgentEmbedding,
    "global": GlobalAggregate,
    "bottom-up": BottomUp,
    "deep-sets": DeepSets,
    "moments": MomentVector,
}
