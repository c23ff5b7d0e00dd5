"""What happens to gradients between the reduction and the optimizer."""
