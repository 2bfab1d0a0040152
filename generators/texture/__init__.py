"""Classes of procedural textures: random programs over the plane."""

from .texture import TextureStream

__all__ = ["TextureStream"]
