"""How good it is: metrics with intervals, and the trivial baselines beside them."""
