"""What a student is to have in common with its teacher: one file a term of the loss, named after it."""
