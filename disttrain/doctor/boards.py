"""Does TensorBoard see the plugin?"""

import importlib.metadata

from disttrain.doctor.findings import Finding

_AGAIN = "pip install --force-reinstall --no-deps disttrain"


def check():
    """Looks where TensorBoard looks."""
    try:
        importlib.metadata.version("tensorboard")
    except importlib.metadata.PackageNotFoundError:
        return  # `packages` tells of that.
    points = importlib.metadata.entry_points(group="tensorboard_plugins")
    own = [point for point in points if point.name == "disttrain"]
    if not own:
        yield Finding("Plugin", "warning", "TensorBoard does not know the plugin", _AGAIN)
        return
    for point in points:
        try:
            point.load()
        except Exception as error:
            # One plugin that does not load stops TensorBoard itself.
            yield Finding(
                "Plugin",
                "warning",
                f"TensorBoard will not start, for its plugin {point.name} does not load ({error})",
                _AGAIN if point in own else f"pip uninstall {point.dist.name}",
            )
            return
    yield Finding("Plugin", "ok", "TensorBoard sees it")
