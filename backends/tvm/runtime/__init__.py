"""What runs a built model: no TVM compiler, no PyTorch."""
