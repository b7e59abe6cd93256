"""The converters, one file a family; each function turns one ONNX operator into calls of the dialect."""
