"""How small a model shall become: the options that say so, what they count, and the search that gets there."""
