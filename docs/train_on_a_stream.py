"""Train any PyTorch model on a stream: here a timm network classifies fractals; no image repeats."""

import sys

import timm
import torch
from torch.utils.data import DataLoader

from wildfern.generators import make_stream
from wildfern.ssl.data.stream_dataset import stream_dataset

steps, batch_size = int(sys.argv[1]) if len(sys.argv) > 1 else 300, 64
stream = make_stream("ifs", size=64, points=4000, classes=10)
batches = DataLoader(stream_dataset(stream, batch_size), batch_size=None, num_workers=1)

device = "cuda" if torch.cuda.is_available() else "cpu"
model = timm.create_model("resnet18", num_classes=10).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)

for step, batch in zip(range(steps), batches, strict=False):
    images = batch["images"].to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    logits = model(images)
    loss = torch.nn.functional.cross_entropy(logits, batch["labels"].to(device))
    loss.backward()
    optimizer.step(), schedule.step(), optimizer.zero_grad()
    if step % 20 == 19:  # every image is new: training accuracy is test accuracy
        right = (logits.argmax(1).cpu() == batch["labels"]).float().mean()
        print(f"step {step + 1}  loss {loss:.3f}  accuracy {right:.2f}", flush=True)
