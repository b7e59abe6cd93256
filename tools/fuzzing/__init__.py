"""Random models through every door, pipeline and target, compared with PyTorch and ONNX Runtime."""
