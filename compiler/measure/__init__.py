"""What a model costs and how well it does: work, memory, latency, accuracy, and what it lost."""
