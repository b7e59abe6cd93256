"""Two models side by side on the same data: which layers belong together, and how far their values are apart."""
