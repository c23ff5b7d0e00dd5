"""What a manifest holds to tell one program from another."""


def compared(state, feed, config, seed, replicas):
    """What is compared when another process goes on.

    Args:
        state: The `disttrain.checkpoints.state.State`.
        feed: The `disttrain.data.Feed`.
        config: What `comparing.configuration` has said of the optimizer.
        seed: The trainer's seed.
        replicas: Their number.
    """
    return {
        "replicas": replicas,
        "variables": state.describe(),
        "optimizer": config,
        "seed": seed,
        "data": {
            "steps": feed.steps,
            "batch": feed.batch,
            "endless": feed.endless,
            "numbered": feed.numbered,
        },
    }
