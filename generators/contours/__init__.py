"""Classes of closed contours, with masks."""

from .contours import ContoursStream

__all__ = ["ContoursStream"]
