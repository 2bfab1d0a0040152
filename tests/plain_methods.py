"""Every method's loss from its formula, with plain torch, on all images in one process."""

import torch
from torch.nn import functional as F


def embeddings(backbone, head, groups):
    """float[V, N, D], unit rows: the backbone runs once per resolution, the head once on all views."""
    images = groups[0].shape[1]
    return F.normalize(raw(backbone, head, groups), dim=-1).view(-1, images, raw_size(head))


def raw(backbone, head, groups):
    return head(torch.cat([backbone(g.reshape(-1, *g.shape[2:])) for g in groups]))


def raw_size(head):
    return [m for m in head.modules() if isinstance(m, torch.nn.Linear)][-1].out_features


def simclr(method, teachers, groups):
    """Chen et al., 2020, equation 1: each of 2 N embeddings is classified against the 2 N - 1 others."""
    z = embeddings(method.backbone, method.projection, groups).flatten(0, 1)
    logits = (z @ z.T / 0.1).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def cacr(method, teachers, groups):
    """Attraction over the other views of an image, repulsion over the other images of each later view."""
    z = embeddings(method.backbone, method.projection, groups)
    views, images, _ = z.shape
    attraction, repulsion = [], []
    for i in range(images):
        for x in range(views):
            d = torch.stack([(z[x, i] - z[k, i]).square().sum() for k in range(views) if k != x])
            attraction.append((d.softmax(0) * d).sum())
            for y in range(x + 1, views):
                d = torch.stack([(z[x, i] - z[y, j]).square().sum() for j in range(images) if j != i])
                repulsion.append(((-d).softmax(0) * d).sum())
    return torch.stack(attraction).mean() - torch.stack(repulsion).mean()


def momentum(method, teachers, groups, cost):
    """Both global views are keys in turn; every other view is a query."""
    student = torch.nn.Sequential(method.projector, method.predictor)
    q, temperature = embeddings(method.backbone, student, groups), 0.5
    teacher = teachers["teacher"]
    keys = embeddings(teacher[0], teacher[1], groups[:1]).detach()
    parts = []
    for key, k in enumerate(keys):
        asking = torch.stack([q[v] for v in range(len(q)) if v != key])
        to_own = (asking - k).square().sum(-1)
        p = (to_own / temperature).softmax(0).detach()
        similarity = asking @ k.T
        if cost == "rbf":
            own = torch.arange(len(k))
            entropy = torch.stack([F.cross_entropy(s / temperature, own, reduction="none") for s in similarity])
            parts.append(2 * temperature * (p * entropy).mean(dim=1).sum())
        else:
            costs = 1 - similarity
            others = ~torch.eye(len(k), dtype=torch.bool)
            w = (-costs / temperature).masked_fill(~others, -torch.inf).softmax(-1).detach()
            parts.append((p * (costs.diagonal(dim1=1, dim2=2) - (w * costs).sum(-1))).sum())
    return sum(parts) / 2


def dino(method, teachers, groups):
    """Algorithm 1, with an initial center of 0, which moves by a tenth towards the mean of the teacher's logits."""
    images, teacher = groups[0].shape[1], teachers["teacher"]
    with torch.no_grad():
        t = raw(teacher[0], teacher[1], groups[:1]).view(2, images, -1)
    s = raw(method.backbone, method.head, groups).view(-1, images, t.shape[-1])
    pairs = [
        -((t[a] / 0.04).softmax(-1) * (s[b] / 0.1).log_softmax(-1)).sum(-1).mean()
        for a in range(2)
        for b in range(len(s))
        if a != b
    ]
    method.loss.center = 0.1 * t.mean(dim=(0, 1))
    return torch.stack(pairs).mean()


PLAIN = {
    "simclr": simclr,
    "cacr": cacr,
    "cacr_momentum": lambda *given: momentum(*given, "rbf"),
    "cacr_momentum euclidean": lambda *given: momentum(*given, "euclidean"),
    "dino": dino,
}
