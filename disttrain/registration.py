"""Makes our classes known to `keras.models.load_model`, in whatever order the imports stand.

Keras looks registered names up in a dictionary. Our names are put into it as soon as there is a
Keras, each with a placeholder that imports the class when a saved model needs it: `import
disttrain` alone loads neither Keras nor TensorFlow, and `import keras` loads none of our modules.
"""

import importlib
import importlib.abc
import importlib.util
import inspect
import sys

#: All classes that are saved with a model, by module.
CLASSES = {
    "disttrain.gradients.clip_each": ("ClipEach",),
    "disttrain.gradients.clipping": (
        "AdaptiveClip",
        "AutoClip",
        "ClipByGlobalNorm",
        "ClipByNorm",
        "ClipByValue",
    ),
    "disttrain.gradients.loss_scale": ("DynamicLossScale", "FixedLossScale"),
    "disttrain.layers": ("SyncBatchNormalization",),
    "disttrain.optimizers.addons": ("AddonsOptimizer",),
    "disttrain.optimizers.distributed": ("DistributedOptimizer",),
    "disttrain.optimizers.groups": ("Grouped",),
    "disttrain.optimizers.lars": ("LARS",),
    "disttrain.optimizers.legacy": ("LegacyOptimizer",),
    "disttrain.optimizers.legacy_core": ("CoreOptimizer",),
    "disttrain.optimizers.legacy_schedules": ("LegacySchedule",),
    "disttrain.optimizers.lookahead": ("Lookahead",),
    "disttrain.optimizers.named": ("NamedOptimizers",),
    "disttrain.optimizers.sam": ("SAM",),
    "disttrain.optimizers.switching": ("Continued",),
    "disttrain.schedules.composition": ("ByEpoch", "Scaled", "Sequence", "Warmup"),
    "disttrain.schedules.plateau": ("Plateau",),
    "disttrain.schedules.shapes": ("Cyclical", "InverseSqrt", "OneCycle"),
}


def register_with_keras():
    """Makes the names known now, or as soon as Keras is imported."""
    if hasattr(sys.modules.get("keras"), "saving"):
        _register(sys.modules["keras"])
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


def _register(keras):
    known = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            # A class that has been imported stays; its decorator replaces a placeholder.
            known.setdefault(f"disttrain>{name}", _placeholder(module, name))


def _placeholder(module, name):
    """A class with the one method by which Keras makes an object of a saved one."""

    def from_config(config, custom_objects=None):
        make = getattr(importlib.import_module(module), name).from_config
        if "custom_objects" in inspect.signature(make).parameters:
            return make(config, custom_objects=custom_objects)
        return make(config)

    return type(name, (), {"from_config": staticmethod(from_config), "__module__": module})


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Waits for the import of Keras, and takes itself away then."""

    def __init__(self):
        self._asking = False

    def find_spec(self, name, path, target=None):
        if name != "keras" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asking = False
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            _register(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)

        spec.loader.exec_module = execute_and_register
        return spec
