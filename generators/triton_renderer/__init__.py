"""Fractal scenes drawn by a GPU. Needs torch and triton, so nothing else in `wildfern.generators` imports this at its start."""
