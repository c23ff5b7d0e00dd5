"""The learning-rate range test: tries ever higher rates on a few batches, and puts all back.

`sweep` runs it, `judging` reads the suggestion off the curve, `objections` asks the health rules,
`picture` draws it, and `automatic` is what `Trainer.fit(learning_rate="auto")` does. `Trainer`
calls it; `disttrain.experiments.lr_range` is its public name.
"""

from disttrain.range_test.sweep import RateRange, run

__all__ = ["RateRange", "run"]
