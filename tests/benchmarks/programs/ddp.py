"""PyTorch's DistributedDataParallel over Gloo, by turns; `old_horovod.sh` makes the environment."""

import json
import os
import sys

from tests.benchmarks.programs import networks, turns

RANK = int(os.environ["RANK"])
turns.pin(RANK)

import torch  # noqa: E402, it comes after the core is chosen
from torch import nn  # noqa: E402


def build(name):
    """The network of `networks.build`."""
    if name == "convnet":
        layers = [
            *(nn.Conv2d(1, 32, 3, padding="same"), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding="same"), nn.ReLU()),
            nn.MaxPool2d(2),
            *(nn.Conv2d(32, 64, 3, padding="same"), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(4 * 4 * 64, 64), nn.ReLU()),
            nn.Linear(64, networks.CLASSES),
        ]
    else:
        (width,) = networks.SHAPES[name]
        layers = []
        for _ in range(networks.LAYERS[name]):
            layers += [nn.Linear(width, width), nn.ReLU()]
        layers.append(nn.Linear(width, networks.CLASSES))
    model = nn.Sequential(*layers)
    assert sum(p.numel() for p in model.parameters()) == networks.PARAMETERS[name]
    return model


def run(network, fused=False):
    """A training: a function that makes n steps, and one that returns a checksum of its weights.

    Args:
        network: A name of `networks.SHAPES`.
        fused: Whether the optimizer updates in one operation, and gradients share memory with what
            travels.
    """
    torch.manual_seed(RANK)
    options = {"gradient_as_bucket_view": True, "static_graph": True} if fused else {}
    model = nn.parallel.DistributedDataParallel(build(network), **options)
    # Epsilon as in Keras.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=fused or None)
    loss_of = nn.CrossEntropyLoss()
    x, y = (torch.from_numpy(array) for array in networks.data(network, first=RANK))
    if network == "convnet":
        x = x.permute(0, 1, 4, 2, 3).contiguous()
    y = y.long()
    done = 0

    def steps(count):
        nonlocal done
        for _ in range(count):
            place = done % networks.BATCHES
            optimizer.zero_grad()
            loss = loss_of(model(x[place]), y[place])
            loss.backward()
            optimizer.step()
            done += 1

    def checksum():
        return networks.checksum(p.detach().numpy() for p in model.parameters())

    return steps, checksum


torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
chosen, content = sys.argv[1:]
turns.take(RANK, {name: run(chosen, **own) for name, own in json.loads(content).items()})
