"""Methods: heads, teacher and loss behind one small interface. A new one is a file and a line here."""

from wildfern.registry import METHODS, register
from wildfern.ssl.methods.base import Method
from wildfern.ssl.methods.cacr import CACR, MomentumCACR
from wildfern.ssl.methods.dino import DINO
from wildfern.ssl.methods.simclr import SimCLR

for _name, _method in (("simclr", SimCLR), ("cacr", CACR), ("cacr_momentum", MomentumCACR), ("dino", DINO)):
    register("method", _name)(_method)

__all__ = ["CACR", "DINO", "METHODS", "Method", "MomentumCACR", "SimCLR"]
