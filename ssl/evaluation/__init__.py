"""Evaluation of backbones: evaluators, their scores and intervals, diagnostics, the table and the report."""

from wildfern.ssl.evaluation.diagnostics import alignment, diagnostics, feature_std, rank_me, uniformity
from wildfern.ssl.evaluation.evaluator import (
    Chunk,
    ChunkStream,
    Evaluator,
    Features,
    HeldOut,
    LabeledImages,
    Predictions,
    Score,
)
from wildfern.ssl.evaluation.feature_store import FeatureStore, feature_key
from wildfern.ssl.evaluation.features import extract_features
from wildfern.ssl.evaluation.last_blocks import LastBlocks
from wildfern.ssl.evaluation.metrics.average_precision import (
    average_precision,
    mean_average_precision,
    multi_label_scores,
)
from wildfern.ssl.evaluation.metrics.bootstrap import difference_interval, mean_interval
from wildfern.ssl.evaluation.metrics.classification_scores import (
    classification_scores,
    mean_score,
    predicted_scores,
    proportion,
    wilson_interval,
)
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.protocol import ProtocolsFailed, evaluate_backbones
from wildfern.ssl.evaluation.protocols.anomaly import Anomaly
from wildfern.ssl.evaluation.protocols.attentive_probe import AttentiveProbe
from wildfern.ssl.evaluation.protocols.category_discovery import CategoryDiscovery
from wildfern.ssl.evaluation.protocols.clustering import Clustering
from wildfern.ssl.evaluation.protocols.corruption_robustness import Corruptions
from wildfern.ssl.evaluation.protocols.few_shot import FewShot, FewShotResult, few_shot
from wildfern.ssl.evaluation.protocols.finetune import Finetune, FinetuneResult, finetune
from wildfern.ssl.evaluation.protocols.knn import KNN, KNNResult, choose_knn, knn
from wildfern.ssl.evaluation.protocols.label_free import LabelFree
from wildfern.ssl.evaluation.protocols.landmark_ground_truth import read_ground_truth
from wildfern.ssl.evaluation.protocols.landmarks import evaluate_landmarks, revisited_scores
from wildfern.ssl.evaluation.protocols.linear_probe import LinearProbe, LinearResult, fit_linear_probe, linear_probe
from wildfern.ssl.evaluation.protocols.linear_sgd import LinearSGD
from wildfern.ssl.evaluation.protocols.regression_probe import RegressionProbe
from wildfern.ssl.evaluation.protocols.retrieval import Retrieval, retrieve
from wildfern.ssl.evaluation.protocols.segmentation import Segmentation
from wildfern.ssl.evaluation.protocols.segmentation_finetune import SegmentationFinetune
from wildfern.ssl.evaluation.protocols.segmentation_probe import SegmentationProbe
from wildfern.ssl.evaluation.report.comparison import Comparison, compare_runs
from wildfern.ssl.evaluation.report.page import record_names, report_page, write_report
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord, read_run
from wildfern.ssl.evaluation.spilled_array import MemoryBudget
from wildfern.ssl.evaluation.transformed import TransformedBackbone

__all__ = [
    "KNN",
    "Anomaly",
    "AttentiveProbe",
    "CategoryDiscovery",
    "Chunk",
    "ChunkStream",
    "Clustering",
    "Comparison",
    "Corruptions",
    "EvaluationResult",
    "Evaluator",
    "FeatureStore",
    "Features",
    "FewShot",
    "FewShotResult",
    "Finetune",
    "FinetuneResult",
    "HeldOut",
    "KNNResult",
    "LabelFree",
    "LabeledImages",
    "LastBlocks",
    "LinearProbe",
    "LinearResult",
    "LinearSGD",
    "MemoryBudget",
    "Predictions",
    "Preprocessing",
    "ProtocolsFailed",
    "RegressionProbe",
    "Retrieval",
    "RunRecord",
    "Score",
    "Segmentation",
    "SegmentationFinetune",
    "SegmentationProbe",
    "TransformedBackbone",
    "alignment",
    "average_precision",
    "choose_knn",
    "classification_scores",
    "compare_runs",
    "diagnostics",
    "difference_interval",
    "evaluate_backbones",
    "evaluate_landmarks",
    "extract_features",
    "feature_key",
    "feature_std",
    "few_shot",
    "finetune",
    "fit_linear_probe",
    "knn",
    "linear_probe",
    "mean_average_precision",
    "mean_interval",
    "mean_score",
    "multi_label_scores",
    "predicted_scores",
    "proportion",
    "rank_me",
    "read_ground_truth",
    "read_run",
    "record_names",
    "report_page",
    "retrieve",
    "revisited_scores",
    "uniformity",
    "wilson_interval",
    "write_report",
]
