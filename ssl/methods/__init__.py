"""Methods: heads, teachers and loss behind one interface, `forward(batch) -> Output`. One file and one import per method."""

from wildfern.registry import METHODS
from wildfern.ssl.methods.barlow_twins import BarlowTwins
from wildfern.ssl.methods.base import Method, Needs, ParameterGroup
from wildfern.ssl.methods.batch import Batch, Embedded, Output
from wildfern.ssl.methods.byol import BYOL
from wildfern.ssl.methods.cacr import CACR, MomentumCACR, QueueCACR
from wildfern.ssl.methods.comparing import ComparingMethod
from wildfern.ssl.methods.denoising_autoencoder import DenoisingAutoencoder
from wildfern.ssl.methods.dino import DINO
from wildfern.ssl.methods.dinov2 import DINOv2
from wildfern.ssl.methods.distillation import Distillation
from wildfern.ssl.methods.freecos import FreeCOS
from wildfern.ssl.methods.ibot import IBOT
from wildfern.ssl.methods.ijepa import IJEPA
from wildfern.ssl.methods.instance_identity import InstanceIdentity
from wildfern.ssl.methods.lejepa import LeJEPA
from wildfern.ssl.methods.mae import MAE
from wildfern.ssl.methods.moco_v2 import MoCoV2
from wildfern.ssl.methods.moco_v3 import MoCoV3
from wildfern.ssl.methods.nnclr import NNCLR
from wildfern.ssl.methods.parameter_regression import ParameterRegression
from wildfern.ssl.methods.simclr import SimCLR
from wildfern.ssl.methods.simmim import SimMIM
from wildfern.ssl.methods.simsiam import SimSiam
from wildfern.ssl.methods.supervised import Supervised
from wildfern.ssl.methods.swav import SwAV
from wildfern.ssl.methods.usual import Usual
from wildfern.ssl.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "CACR",
    "DINO",
    "IBOT",
    "IJEPA",
    "MAE",
    "METHODS",
    "NNCLR",
    "BarlowTwins",
    "Batch",
    "ComparingMethod",
    "DINOv2",
    "DenoisingAutoencoder",
    "Distillation",
    "Embedded",
    "FreeCOS",
    "InstanceIdentity",
    "LeJEPA",
    "Method",
    "MoCoV2",
    "MoCoV3",
    "MomentumCACR",
    "Needs",
    "Output",
    "ParameterGroup",
    "ParameterRegression",
    "QueueCACR",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "Supervised",
    "SwAV",
    "Usual",
    "VICReg",
]
