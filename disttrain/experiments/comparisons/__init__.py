"""Trains optimizers with several seeds, and says what may be concluded."""
