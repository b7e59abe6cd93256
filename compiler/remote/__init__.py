"""Models on another machine: a server on the board that needs NumPy alone, and the workstation's side of it."""
