"""A model and what it is made of: the dialect, the graph and its text, the operators of lvc itself."""
