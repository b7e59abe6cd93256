"""What a model, a pass, a pipeline, a target and a report are. Knows no pass and no backend by import."""
