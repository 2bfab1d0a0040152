"""Online kNN on one rank or several, of the same global batches, which have other numbers of labels on each rank."""

import torch

from wildfern.ssl.training import OnlineKNN

BATCH, PARTS, STEPS, WIDTH, CLASSES, IMAGES = 16, 2, 7, 5, 3, 50
CPU = torch.device("cpu")


def made():
    return OnlineKNN(WIDTH, CLASSES, k=4, temperature=0.2, images=IMAGES, device=CPU)


def batches(step):
    """The micro-batches of a step: features that tell the classes apart somewhat, and labels, of which the first are missing."""
    generator = torch.Generator().manual_seed(step)
    for part in range(PARTS):
        labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        features = torch.randn(BATCH, WIDTH, generator=generator) + torch.nn.functional.one_hot(labels, WIDTH)
        labels[: 3 * (step % 4) + part] = -1
        yield features, labels


def trained(knn, steps, rank=0, world_size=1):
    """The accuracy of each step, and the state at the end."""
    accuracies, mine = [], slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    for step in steps:
        for features, labels in batches(step):
            knn.observe(features[mine], labels[mine])
        knn.step()
        accuracies.append(knn.take_accuracy().get("online_knn_accuracy", -1.0))
    return {"accuracies": torch.tensor(accuracies, dtype=torch.float64), **knn.state_dict()}


def worker(rank, world_size, folder):
    """All steps; and the last ones from the state of one rank, which is in `folder/one.pt`."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    found = trained(made(), range(STEPS), rank, world_size)
    resumed = made()
    resumed.load_state_dict(torch.load(folder / "one.pt", weights_only=True))
    found |= {f"resumed {name}": value for name, value in trained(resumed, range(3, STEPS), rank, world_size).items()}
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()
