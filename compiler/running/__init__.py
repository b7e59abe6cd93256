"""Models run over data in PyTorch: in batches of as many images as serve, with values looked at on the way."""
