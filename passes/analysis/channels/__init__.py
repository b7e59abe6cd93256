"""How the channels of a graph hang together: labels sent through it, the surgery that they allow, and its proof."""
