"""What a system does: solve and simulate it."""
