"""What training by labels minimises: one file a loss, named after it."""
