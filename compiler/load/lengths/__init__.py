"""Values whose length depends on the data, in a graph that is static: what of them is valid, followed call by call."""
