"""The steps from the outputs of a network to what its user wants: one file a step, named after it."""
