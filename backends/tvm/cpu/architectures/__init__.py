"""One file an architecture: its processors, and how an operating system tells which one it runs on."""
