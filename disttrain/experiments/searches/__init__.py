"""Looks for the parameters with which a training ends best."""
