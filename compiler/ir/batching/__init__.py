"""The same model for another number of images: where the batch lies in every value, and which sizes stand for it."""
