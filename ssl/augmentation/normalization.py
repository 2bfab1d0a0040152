"""ImageNet's mean and standard deviation (timm's default), with which views are normalized."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
