"""What to use instead of Horovod's names, for errors that a moved script meets.

`docs/from_horovod.md` has the same in a table with more words. Imports nothing.
"""

_REPLICATION = "replication = disttrain.replication.resolve()"

#: A name of Horovod's to the sentence that replaces it.
NAMES = {
    "init": "leave it out; the Trainer, or disttrain.replication.resolve(), starts Horovod and "
    "gives each rank its GPU",
    "shutdown": "leave it out; Horovod shuts down when the process ends",
    "rank": f"use {_REPLICATION} and replication.topology.process, or replication.is_chief",
    "size": f"use {_REPLICATION} and replication.topology.processes",
    "local_rank": "leave it out; disttrain gives each rank its GPU by itself",
    "local_size": "leave it out; disttrain gives each rank its GPU by itself",
    "allreduce": f"use {_REPLICATION} and replication.all_gather(array).mean(axis=0)",
    "allgather": f"use {_REPLICATION} and replication.all_gather(array)",
    "broadcast": "use disttrain.broadcast_object(array, root_rank=0)",
    "broadcast_variables": f"use {_REPLICATION} and replication.broadcast(variables); the Trainer "
    "does it by itself",
    "join": "leave it out; Trainer.fit gives all processes the same number of steps, and a process "
    "without examples takes part with zeros",
    "DistributedGradientTape": "use tf.GradientTape, and apply its gradients with "
    "disttrain.DistributedOptimizer(optimizer).apply(gradients, variables), which reduces them",
    "PartialDistributedOptimizer": "use disttrain.DistributedOptimizer(optimizer, "
    "local_variables=['*layer_name/*'])",
    "Compression": "use compression='fp16' or 'bf16' of the Trainer or of DistributedOptimizer",
    "SyncBatchNormalization": "use disttrain.layers.SyncBatchNormalization",
    "elastic": "give the Trainer a disttrain.Checkpoint, and start the job with launch/elastic.sh",
    "load_model": "use keras.models.load_model after import disttrain.optimizers",
    "BroadcastGlobalVariablesCallback": "leave it out with the Trainer; with Model.fit use "
    "disttrain.callbacks.BroadcastVariables()",
    "MetricAverageCallback": "leave it out with the Trainer; with Model.fit use "
    "disttrain.callbacks.MetricAverage()",
    "LearningRateWarmupCallback": "use disttrain.schedules.Warmup(rate, steps=warmup_epochs * "
    "steps_per_epoch, start=rate / processes, ahead=1) as the optimizer's learning rate",
    "LearningRateScheduleCallback": "use disttrain.schedules.ByEpoch(function, steps_per_epoch) as "
    "the optimizer's learning rate",
    "BestModelCheckpoint": "use keras.callbacks.ModelCheckpoint(path, save_best_only=True), which "
    "the Trainer runs on the chief alone",
}

_AVERAGED = (
    "disttrain averages the gradients of accumulate_steps batches, and Horovod adds them by "
    "default, so that its update is backward_passes_per_step times as large; multiply the learning "
    "rate of SGD by accumulate_steps to keep it, or pass average_aggregated_gradients=True there "
    "to compare"
)

#: An argument of Horovod's `DistributedOptimizer` to the sentence that replaces it.
ARGUMENTS = {
    "op": "use reduction='mean' for hvd.Average, 'sum' for hvd.Sum, 'adasum' for hvd.Adasum",
    "average": "use reduction='mean' or 'sum'",
    "backward_passes_per_step": f"use accumulate_steps; {_AVERAGED}",
    "average_aggregated_gradients": f"leave it out; {_AVERAGED}",
    "gradient_predivide_factor": "leave it out; gradients are summed and then divided once",
    "num_groups": "use groups",
    "process_set": "use replication=disttrain.replication.Horovod(ranks)",
    "local_layers": "use local_variables=['*layer_name/*']",
    "scale_local_gradients": "leave it out; gradients of local_variables stay as they are",
    "device_dense": "leave it out; gradients are reduced where they are",
    "device_sparse": "leave it out; gradients are reduced where they are",
    "use_locking": "leave it out; Keras 3 has no such option",
}


def missing(name, module):
    """The text of the `AttributeError` for a name that `module` does not have."""
    text = f"module {module!r} has no attribute {name!r}"
    return f"{text}; coming from Horovod: {NAMES[name]}" if name in NAMES else text


def refuse(arguments):
    """Refuses arguments that `DistributedOptimizer` does not have.

    Args:
        arguments: Name to value.

    Raises:
        TypeError: There is one.
    """
    for name in arguments:
        hint = f"; coming from Horovod: {ARGUMENTS[name]}" if name in ARGUMENTS else ""
        raise TypeError(f"DistributedOptimizer has no argument {name!r}{hint}")
