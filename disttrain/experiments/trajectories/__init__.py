"""Follows an optimizer on a function of one or two variables."""
