"""Segmentation of whole images: overlapping windows, skeleton graphs, overlays."""
