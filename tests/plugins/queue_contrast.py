"""A method with a global queue, as a plugin of another project: MoCo's loss (He et al., 2020) in one file."""

from torch import Tensor, cat, nn
from torch.nn import functional as F

from wildfern.registry import register
from wildfern.ssl.losses.full_precision import full_precision
from wildfern.ssl.methods import Batch, ComparingMethod, Embedded, Needs, Output
from wildfern.ssl.models import Backbone
from wildfern.ssl.models.queue import EmbeddingQueue


@register("method", "queue_contrast")
class QueueContrast(ComparingMethod):
    """The second view's key is the positive, the queue of earlier batches' keys are the negatives."""

    needs = Needs(views=(2, 2), float32_views=False)

    def __init__(
        self, backbone: Backbone, total_steps: int, *, length: int = 32, size: int = 8, temperature: float = 0.2
    ) -> None:
        super().__init__()
        self.backbone, self.temperature = backbone, temperature
        self.projection = nn.Linear(backbone.width, size)
        self.queue = EmbeddingQueue(length, size)
        self.teacher = self.add_teacher("teacher", ("backbone", "projection"), lambda step: 0.99)

    def embed(self, batch: Batch) -> Embedded:
        embeddings, features = self.encode(self.projection, [batch.views[0][:1]])
        return Embedded({"query": F.normalize(full_precision(embeddings), dim=-1)}, features)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        return {"key": F.normalize(full_precision(self.teacher(batch.views[0][1])), dim=1)[None]}

    def compare(self, embeddings: dict[str, Tensor], step: int) -> Output:
        query, key = embeddings["query"][0], embeddings["key"][0]
        loss = queue_loss(query, key, self.queue(), self.temperature)
        self.queue.push(key)
        return Output(loss)


def queue_loss(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    logits = cat([(query * key).sum(dim=1, keepdim=True), query @ queue.T], dim=1) / temperature
    return -logits.log_softmax(dim=1)[:, 0].mean()
