"""Random models through every importer, pipeline and target, compared with PyTorch and ONNX Runtime."""
