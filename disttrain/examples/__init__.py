"""Programs to run with `python -m disttrain.examples.NAME`, and to copy from."""
