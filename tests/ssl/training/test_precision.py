import timm

from wildfern.ssl.training.precision import strided_over_one_pixel


def test_too_small_views_of_a_resnet_are_found():
    resnet = timm.create_model("resnet18", num_classes=0, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    assert strided_over_one_pixel(resnet, [32, 64]) == []
    assert strided_over_one_pixel(resnet, [16, 32]) == [("layer4.0.conv1", 16)]
    assert resnet.training


def test_the_state_of_batch_normalization_is_not_changed():
    resnet = timm.create_model("resnet18", num_classes=0, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    before = {k: v.clone() for k, v in resnet.state_dict().items()}
    strided_over_one_pixel(resnet, [16])
    assert all((before[k] == v).all() for k, v in resnet.state_dict().items())
