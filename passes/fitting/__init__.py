"""Layers fitted to data by least squares: moments of what they read and shall give, and what follows from them."""
