import pytest
import torch
from class_clouds import points
from sklearn.cluster import KMeans

from wildfern.ssl.evaluation.protocols.category_discovery import draw_labeled
from wildfern.ssl.evaluation.protocols.semi_supervised_k_means import count_by_labeled_accuracy, semi_supervised_k_means


def test_k_means_without_labels_is_scikit_learns():
    x = points(200, noise=0.3).x
    centroids, clusters = semi_supervised_k_means(x, torch.full((200,), -1), 6, seed=0)
    inertia = (x - centroids[clusters]).square().sum().item()
    assert inertia == pytest.approx(KMeans(6, n_init=10, random_state=0).fit(x.numpy()).inertia_, rel=1e-4)


def test_labeled_images_keep_their_cluster_in_k_means():
    data = points(120, noise=0.4)
    given = torch.full((120,), -1)
    given[:40] = data.y[:40] % 3  # not the clusters in which they would fall
    centroids, clusters = semi_supervised_k_means(data.x, given, 5, seed=0)
    assert torch.equal(clusters[:40], given[:40])
    distance = torch.cdist(data.x, centroids)
    assert (distance[:40].argmin(1) != given[:40]).any()
    assert torch.equal(distance[40:].argmin(1), clusters[40:])
    for k in range(5):
        torch.testing.assert_close(centroids[k], data.x[clusters == k].mean(0))


def test_the_number_of_classes_is_that_which_clusters_labeled_images_best():
    data = points(180)
    given = draw_labeled(data.y, 0.7, 0.5, seed=0)[1]
    assert count_by_labeled_accuracy(data.x, given, 30, seed=0) == 6
