"""What a backbone has learned: frozen-feature protocols, fine-tuning, diagnostics, tables and the report."""

from wildfern.ssl.evaluation.diagnostics import alignment, feature_std, rank_me, uniformity
from wildfern.ssl.evaluation.features import Features, extract_features
from wildfern.ssl.evaluation.few_shot import FewShotResult, few_shot
from wildfern.ssl.evaluation.finetune import FinetuneResult, finetune
from wildfern.ssl.evaluation.knn import KNNResult, knn
from wildfern.ssl.evaluation.linear_probe import LinearResult, linear_probe
from wildfern.ssl.evaluation.protocol import PROTOCOLS, Evaluation, evaluate_backbones
from wildfern.ssl.evaluation.report import write_report
from wildfern.ssl.evaluation.run_record import RunRecord, read_run

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Features",
    "FewShotResult",
    "FinetuneResult",
    "KNNResult",
    "LinearResult",
    "RunRecord",
    "alignment",
    "evaluate_backbones",
    "extract_features",
    "feature_std",
    "few_shot",
    "finetune",
    "knn",
    "linear_probe",
    "rank_me",
    "read_run",
    "uniformity",
    "write_report",
]
