"""What `prune-channels` is made of: criteria judge units, rankings choose among them, budgets say when to stop."""
