"""Fractal scenes rendered on a GPU. Needs torch and triton, so `wildfern.generators` imports it only on request."""
