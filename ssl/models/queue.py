"""A queue of embeddings of earlier global batches (MoCo: He et al., 2020, section 3.2; NNCLR: Dwibedi et al., 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class EmbeddingQueue(nn.Module):
    """The last `length` embeddings, with unit rows; random directions until it has been filled. Calling it returns them.

    Push the same embeddings on every rank (those of the global batch, see `all_gather_embeddings`), so that the queue is equal
    on all ranks and checkpoints contain it once.
    """

    embeddings: Tensor
    next: Tensor

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", F.normalize(torch.randn(length, dim), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def forward(self) -> Tensor:
        """A copy float[length, D], so that the queue may change before the backward pass."""
        return self.embeddings.clone()

    @torch.no_grad()
    def push(self, embeddings: Tensor) -> None:
        """Replace the oldest entries by embeddings float[N, D]; of more than `length`, only the last are kept."""
        length = len(self.embeddings)
        new = embeddings.detach()[-length:].to(self.embeddings.dtype)
        places = (self.next + torch.arange(len(new), device=new.device)) % length
        self.embeddings[places] = new
        self.next.copy_((self.next + len(new)) % length)
