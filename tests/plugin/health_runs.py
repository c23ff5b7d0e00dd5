"""Made-up runs for the tests of the health rules: a healthy one, in which faults are planted."""

import numpy as np

from tensorboard_plugin import health, metadata

ADAM = {
    "class_name": "Adam",
    "config": {"epsilon": 1e-7, "beta_2": 0.999, "amsgrad": False},
    "clip": "ClipByGlobalNorm(limit=1.0)",
    "loss_scale": None,
}
SGD = {**ADAM, "class_name": "SGD", "config": {"momentum": 0.9}}
DYNAMIC = {**ADAM, "loss_scale": "DynamicLossScale(32768)"}

_SLOTS = ("momentum", "velocity")
_LAYERS = [s.name for s in metadata.layer_statistics(_SLOTS)]
_STEPS = [s.name for s in metadata.STEP_QUANTITIES]
_REPLICAS = [s.name for s in metadata.REPLICA_QUANTITIES]


class Training:
    """A healthy training; its columns are views, to plant a fault in.

    It has what healthy trainings have: a warmup and a decay, a rough start, biases that begin at 0,
    an embedding of which a batch holds few rows, an odd batch, a clip that acts now and then, and,
    where there is a loss scale, overflows.

    Args:
        records: Number of records.
        every: Steps between two.
        blocks: Number of pairs of a kernel and a bias.
        replicas: Number of replicas.
        optimizer: Its description.
        seed: Of the noise.
    """

    def __init__(self, records=400, every=1, blocks=5, replicas=4, optimizer=ADAM, seed=0):
        rng = np.random.default_rng(seed)
        self.steps = np.arange(1, records + 1) * every
        self.optimizer = optimizer
        self.since = 1
        self.variables = [_variable("embedding/embeddings", (1000, 64))]
        for block in range(blocks):
            self.variables += [
                _variable(f"block_{block}/kernel", (64, 64)),
                _variable(f"block_{block}/bias", (64,)),
            ]
        sizes = np.array([float(np.prod(v["shape"])) for v in self.variables])
        bias = np.array([len(v["shape"]) == 1 for v in self.variables])
        shape = (records, len(sizes))
        done = self.steps / self.steps[-1]
        self.rate = 1e-3 * np.minimum(1, done / 0.1) * 0.5 * (1 + np.cos(np.pi * done))
        noise = np.exp(rng.normal(0, 0.3, shape)) * np.exp(rng.normal(0, 0.5, len(sizes)))
        weights = np.sqrt(sizes) * np.where(bias, 0.02 * np.sqrt(done)[:, None], 0.1)
        gradients = 0.01 * np.sqrt(sizes) * noise * 0.1 ** done[:, None]
        ratios = self.rate[:, None] * noise
        ratios[self.steps < 60] *= 30
        zeros = np.where(np.arange(len(sizes)) == 0, 0.98, 0.1)
        gradients[:, 0] *= np.sqrt(0.02)
        odd = 3 * records // 4
        gradients[odd] *= 1e5
        ratios[odd] *= 1e3
        self.layers = np.zeros((*shape, len(_LAYERS)), np.float32)
        self.layer("weight_norm")[:] = weights
        self.layer("gradient_norm")[:] = gradients
        self.layer("update_norm")[:] = ratios * weights
        self.layer("update_ratio")[:] = ratios
        self.layer("gradient_max")[:] = gradients / 10
        self.layer("zero_fraction")[:] = zeros
        self.layer("slot/momentum")[:] = gradients / 3
        self.layer("slot/velocity")[:] = gradients**2 / np.sqrt(sizes)
        self.layer("update_cosine")[:] = rng.uniform(0, 0.5, shape)
        norms = np.sqrt((gradients**2).sum(axis=1))
        clipped = rng.uniform(size=records) < 0.05
        loss = 0.2 + 2 * np.exp(-4 * done) + rng.normal(0, 0.05, records)
        loss[odd] = 50
        self.quantities = np.zeros((records, len(_STEPS)), np.float32)
        self.quantity("loss")[:] = loss
        self.quantity("learning_rate")[:] = self.rate
        self.quantity("gradient_norm")[:] = norms
        self.quantity("clip_factor")[:] = np.where(clipped, 0.3, 1)
        self.quantity("loss_scale")[:] = 1
        self.quantity("step_seconds")[:] = 0.1 * rng.uniform(0.8, 1.2, records)
        self.quantity("examples_per_second")[:] = 256 / self.quantity("step_seconds")
        self.quantity("noise_scale")[:] = 300 * np.exp(rng.normal(0, 1, records))
        of_replicas = (records, replicas)
        self.replicas = np.zeros((*of_replicas, len(_REPLICAS)), np.float32)
        spread = np.exp(rng.normal(0, 0.3, of_replicas))
        self.replica("loss")[:] = np.abs(loss)[:, None] * spread
        self.replica("gradient_norm")[:] = norms[:, None] * spread[:, ::-1]
        self.replica("step_seconds")[:] = self.quantity("step_seconds")[:, None]
        self.replica("wait_seconds")[:] = 0.01 * rng.uniform(0.5, 1.5, of_replicas)
        if optimizer.get("loss_scale"):
            self._scale(odd)

    def _scale(self, odd):
        """A loss scale that finds its value at first, grows, and overflows once later."""
        scale = self.quantity("loss_scale")
        scale[:] = 2.0**15
        scale[5:] = 2.0**12
        scale[len(scale) // 2 :] = 2.0**13
        for record in {2, 3, 4, odd} & set(range(len(scale))):
            self.layer("nonfinite")[record] = 7
            for name in ("gradient_norm", "gradient_max"):
                self.layer(name)[record] = np.inf
            for name in ("update_norm", "update_ratio", "update_cosine"):
                self.layer(name)[record] = 0
            self.quantity("skipped")[record] = 1
            self.quantity("gradient_norm")[record] = np.inf
            self.quantity("loss")[record] = np.nan
            self.replica("loss")[record] = np.nan
            self.replica("gradient_norm")[record] = np.inf

    @property
    def paths(self):
        return [variable["path"] for variable in self.variables]

    def layer(self, name, path=None):
        """A view of one statistic, `[records, variables]` or that of one variable, `[records]`."""
        values = self.layers[:, :, _LAYERS.index(name)]
        return values if path is None else values[:, self.paths.index(path)]

    def quantity(self, name):
        """A view of one quantity, `[records]`."""
        return self.quantities[:, _STEPS.index(name)]

    def replica(self, name):
        """A view of one quantity of the replicas, `[records, replicas]`."""
        return self.replicas[:, :, _REPLICAS.index(name)]

    def run(self, rows=slice(None)):
        """The `health.Run`, or a window of it."""
        steps = self.steps[rows]
        return health.Run(
            health.Table.packed(steps, _LAYERS, self.layers[rows]),
            health.Table.packed(steps, _STEPS, self.quantities[rows]),
            health.Table.packed(steps, _REPLICAS, self.replicas[rows]),
            tuple(self.variables),
            self.optimizer,
            self.since,
        )

    def findings(self, rows=slice(None)):
        """What the rules say of it, or of a window of it."""
        return health.findings(self.run(rows))


def _variable(path, shape):
    described = {slot: {"dtype": "float32", "bytes": 4 * int(np.prod(shape))} for slot in _SLOTS}
    return {
        "path": path,
        "shape": list(shape),
        "dtype": "float32",
        "trainable": True,
        "slots": described,
    }
