"""Trains a small byte-level transformer on text files, under any replication.

python -m disttrain.examples.text --logdir runs/text notes/*.txt
"""

import math
import pathlib
import sysconfig

import keras
import numpy as np

from disttrain.examples import common


class Positions(keras.layers.Layer):
    """Adds a learned vector for each position to `[batch, length, width]`."""

    def build(self, shape):
        self.table = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02), name="table"
        )

    def call(self, x):
        return x + self.table


def build_model(length, width=128, layers=4, heads=4):
    """A transformer that predicts the next byte (Vaswani et al. 2017, normalisation first).

    Args:
        length: Bytes of a window.
        width: Width of the residual stream.
        layers: Number of blocks.
        heads: Attention heads of a block.
    """

    def build():
        x = inputs = keras.layers.Input((length,), dtype="int32")
        x = keras.layers.Embedding(256, width, name="bytes")(x)
        x = Positions(name="positions")(x)
        for i in range(layers):
            y = keras.layers.LayerNormalization(name=f"block_{i}_norm_1")(x)
            attention = keras.layers.MultiHeadAttention(
                heads, width // heads, name=f"block_{i}_attention"
            )
            x = x + attention(y, y, use_causal_mask=True)
            y = keras.layers.LayerNormalization(name=f"block_{i}_norm_2")(x)
            y = keras.layers.Dense(4 * width, activation="gelu", name=f"block_{i}_up")(y)
            x = x + keras.layers.Dense(width, name=f"block_{i}_down")(y)
        x = keras.layers.LayerNormalization(name="norm")(x)
        return keras.Model(inputs, keras.layers.Dense(256, name="logits")(x), name="text")

    return build


def read_bytes(files, most):
    """The bytes of text files, one after the other, at most `most`; uint8 `[n]`."""
    paths = files or sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    data = bytearray()
    for path in paths:
        data += pathlib.Path(path).read_bytes()
        if len(data) >= most:
            break
    return np.frombuffer(bytes(data[:most]), np.uint8)


def windows(data, length):
    """Cuts bytes into `(x, y)`, int32 `[n, length]` each, where y is one byte ahead of x."""
    count = (len(data) - 1) // length
    x = data[: count * length].reshape(count, length)
    y = data[1 : count * length + 1].reshape(count, length)
    return x.astype(np.int32), y.astype(np.int32)


def main(arguments=None):
    parser = common.parser(__doc__.partition("\n")[0])
    parser.set_defaults(batch=16)
    parser.add_argument("files", nargs="*", help="text files; by default Python's own library")
    parser.add_argument(
        "--length", type=common.positive, default=64, metavar="N", help="bytes of a window"
    )
    parser.add_argument(
        "--layers", type=common.positive, default=4, metavar="N", help="transformer blocks"
    )
    parser.add_argument(
        "--width", type=common.positive, default=128, metavar="N", help="width of the model"
    )
    parser.add_argument(
        "--bytes", type=common.positive, default=500_000, metavar="N", help="bytes to read"
    )
    options = parser.parse_args(arguments)
    replication = common.replication(options)
    try:
        x, y = windows(read_bytes(options.files, options.bytes), options.length)
    except OSError as error:
        raise SystemExit(f"disttrain: {error}") from None
    kept = len(x) * 9 // 10
    if kept < options.batch or kept == len(x):
        raise SystemExit(
            f"disttrain: the text gives {len(x)} windows of {options.length} bytes, too few for a "
            f"batch of {options.batch} and a validation; give more text or a smaller --batch"
        )

    epochs = options.epochs or 2
    steps = epochs * math.ceil(kept / options.batch)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps, warmup_target=options.learning_rate or 1e-3, warmup_steps=max(1, steps // 10)
    )
    model = build_model(options.length, options.width, options.layers)
    trainer = common.trainer(options, replication, model, schedule)
    if replication.is_chief:
        print(
            f"{kept:,} windows of {options.length} bytes to train on; {common.count(replication)}, "
            f"global batch {options.batch}",
            flush=True,
        )
    trainer.fit(
        x[:kept],
        y[:kept],
        batch_size=options.batch,
        epochs=epochs,
        validation_data=(x[kept:], y[kept:]),
    )
    result = trainer.evaluate(x[kept:], y[kept:], batch_size=options.batch)
    if replication.is_chief:
        print(
            f"Validation loss {result['loss'] / math.log(2):.3f} bits a byte"
            + (f"; the run is in {options.logdir}" if options.logdir else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
