"""What passes that train share: the graph in training form, batches, schedules, the loop and its checkpoints."""
