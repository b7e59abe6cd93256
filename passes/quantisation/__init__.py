"""What the passes of quantisation share: where grids stand, what a grid is, how far one moves the outputs."""
