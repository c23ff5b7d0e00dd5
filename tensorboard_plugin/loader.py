"""What TensorBoard imports at its start: a loader that asks for every record and builds the plugin.

It stays light and free of TensorFlow, because an error or a slow import here is TensorBoard's own.
"""

from tensorboard.plugins import base_plugin

from tensorboard_plugin import metadata

#: What `--samples_per_plugin` takes for "keep all". By default TensorBoard keeps 10 or 100 a tag.
ALL_RECORDS = 0


class Loader(base_plugin.TBLoader):
    """Registered as the entry point `tensorboard_plugins`."""

    def fix_flags(self, flags):
        """Keeps every record, unless the person said otherwise with `--samples_per_plugin`."""
        flags.samples_per_plugin.setdefault(metadata.PLUGIN_NAME, ALL_RECORDS)

    def load(self, context):
        """The plugin, or `None` where TensorBoard runs without a data provider."""
        if context.data_provider is None:
            return None
        from tensorboard_plugin import plugin

        return plugin.Plugin(context)
