"""torchvision's detectors, whose Python decides by data, in forms of fixed shapes: a file for each family of them.

They take a batch of images in place of a list of them. What finds objects in what their networks give is replaced while
they are traced by what computes the same of a fixed number of candidates; eager PyTorch runs them as they are.
"""
