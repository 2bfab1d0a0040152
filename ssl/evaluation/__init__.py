"""Evaluation of backbones: evaluators, their scores and intervals, diagnostics, the table and the report."""

from wildfern.ssl.evaluation.average_precision import average_precision, mean_average_precision, multi_label_scores
from wildfern.ssl.evaluation.comparison import Comparison, compare_runs
from wildfern.ssl.evaluation.diagnostics import alignment, diagnostics, feature_std, rank_me, uniformity
from wildfern.ssl.evaluation.evaluator import Chunk, ChunkStream, Evaluator, Features, HeldOut, LabeledImages, Score
from wildfern.ssl.evaluation.features import extract_features
from wildfern.ssl.evaluation.few_shot import FewShot, FewShotResult, few_shot
from wildfern.ssl.evaluation.finetune import Finetune, FinetuneResult, finetune
from wildfern.ssl.evaluation.knn import KNN, KNNResult, knn
from wildfern.ssl.evaluation.linear_probe import LinearProbe, LinearResult, linear_probe
from wildfern.ssl.evaluation.metrics import classification_scores, proportion, wilson_interval
from wildfern.ssl.evaluation.preprocessing import Preprocessing
from wildfern.ssl.evaluation.protocol import evaluate_backbones
from wildfern.ssl.evaluation.report import record_names, report_page, write_report
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.retrieval import Retrieval, retrieve
from wildfern.ssl.evaluation.run_record import RunRecord, read_run
from wildfern.ssl.evaluation.transformed import TransformedBackbone

__all__ = [
    "KNN",
    "Chunk",
    "ChunkStream",
    "Comparison",
    "EvaluationResult",
    "Evaluator",
    "Features",
    "FewShot",
    "FewShotResult",
    "Finetune",
    "FinetuneResult",
    "HeldOut",
    "KNNResult",
    "LabeledImages",
    "LinearProbe",
    "LinearResult",
    "Preprocessing",
    "Retrieval",
    "RunRecord",
    "Score",
    "TransformedBackbone",
    "alignment",
    "average_precision",
    "classification_scores",
    "compare_runs",
    "diagnostics",
    "evaluate_backbones",
    "extract_features",
    "feature_std",
    "few_shot",
    "finetune",
    "knn",
    "linear_probe",
    "mean_average_precision",
    "multi_label_scores",
    "proportion",
    "rank_me",
    "read_run",
    "record_names",
    "report_page",
    "retrieve",
    "uniformity",
    "wilson_interval",
    "write_report",
]
