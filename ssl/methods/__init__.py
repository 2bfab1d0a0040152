"""Methods: heads, teachers and loss behind one interface, `forward(batch) -> Output`. One file and one import per method."""

from wildfern.registry import METHODS
from wildfern.ssl.methods.base import Method, Needs, ParameterGroup
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.byol import BYOL
from wildfern.ssl.methods.cacr import CACR, MomentumCACR
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.dino import DINO
from wildfern.ssl.methods.mae import MAE
from wildfern.ssl.methods.moco_v2 import MoCoV2
from wildfern.ssl.methods.moco_v3 import MoCoV3
from wildfern.ssl.methods.nnclr import NNCLR
from wildfern.ssl.methods.simclr import SimCLR
from wildfern.ssl.methods.simsiam import SimSiam
from wildfern.ssl.methods.supervised import Supervised
from wildfern.ssl.methods.usual import Usual

__all__ = [
    "BYOL",
    "CACR",
    "DINO",
    "MAE",
    "METHODS",
    "NNCLR",
    "Batch",
    "ComparingMethod",
    "Embedded",
    "Method",
    "MoCoV2",
    "MoCoV3",
    "MomentumCACR",
    "Needs",
    "Output",
    "ParameterGroup",
    "SimCLR",
    "SimSiam",
    "Supervised",
    "Usual",
]
