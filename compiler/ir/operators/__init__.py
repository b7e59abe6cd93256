"""The operators ``lvc::`` that PyTorch lacks, each defined by PyTorch code that every kernel must match."""
