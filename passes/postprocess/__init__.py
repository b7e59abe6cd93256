"""What comes behind the outputs of a network: what a step is, and what steps share."""
