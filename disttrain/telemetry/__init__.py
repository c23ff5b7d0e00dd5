"""What the optimizer does to every layer: measured on the device, written by the chief."""

from disttrain.telemetry.options import Telemetry

__all__ = ["Telemetry"]
