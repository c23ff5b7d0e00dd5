"""Data: what `fit` is given as batches for each replica, and maps that mix examples.

`feeds` makes what a training reads of each kind of data, `parts` cuts global batches for replicas,
and `mixing` has `mixup` and `cutmix`.
"""

from disttrain.data.arrays import split_off
from disttrain.data.feed import Feed, has_no_end, pipeline_errors
from disttrain.data.feeds import make_feed
from disttrain.data.mixing import cutmix, mixup

__all__ = ["Feed", "cutmix", "has_no_end", "make_feed", "mixup", "pipeline_errors", "split_off"]
