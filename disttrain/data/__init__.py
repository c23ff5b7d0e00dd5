"""Data: what `fit` is given as batches for each replica, and maps that mix examples.

`feed` builds what a training reads, `parts` cuts global batches for replicas, and `mixing` has
`mixup` and `cutmix`.
"""

from disttrain.data.feed import Feed, has_no_end, make_feed, pipeline_errors, split_off
from disttrain.data.mixing import cutmix, mixup

__all__ = ["Feed", "cutmix", "has_no_end", "make_feed", "mixup", "pipeline_errors", "split_off"]
