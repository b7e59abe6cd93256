"""What knows CPUs: their processors and instruction sets, kernels with loop nests of their own, and what runs them."""
