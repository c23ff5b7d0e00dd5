"""TensorBoard plugin that shows what an optimizer does to every layer of a model.

It imports NumPy and TensorBoard only, so that TensorBoard starts without TensorFlow.
"""
