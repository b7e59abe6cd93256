"""What compiled kernels can be known by without the processor that they are for."""
