"""Methods: heads, teachers and loss behind one interface, `forward(batch) -> Output`. One file and one import per method."""

from wildfern.registry import METHODS
from wildfern.ssl.methods.base import Method, Needs, ParameterGroup
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.cacr import CACR, MomentumCACR
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.denoising_autoencoder import DenoisingAutoencoder
from wildfern.ssl.methods.dino import DINO
from wildfern.ssl.methods.mae import MAE
from wildfern.ssl.methods.simclr import SimCLR
from wildfern.ssl.methods.supervised import Supervised
from wildfern.ssl.methods.usual import Usual

__all__ = [
    "CACR",
    "DINO",
    "MAE",
    "METHODS",
    "Batch",
    "ComparingMethod",
    "DenoisingAutoencoder",
    "Embedded",
    "Method",
    "MomentumCACR",
    "Needs",
    "Output",
    "ParameterGroup",
    "SimCLR",
    "Supervised",
    "Usual",
]
