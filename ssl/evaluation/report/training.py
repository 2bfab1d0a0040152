"""Sections of the report on training: losses, rates, scores over time, signs of collapse, and speed."""

from collections.abc import Sequence
from itertools import islice

from wildfern.ssl.evaluation.report.curves import MOST_POINTS, POINTS, Chart, Line, chart_figure
from wildfern.ssl.evaluation.report.parts import escape, run_name, section
from wildfern.ssl.evaluation.run_record import RunRecord

MOST_CHARTS = 100  # of a file

# Keys of metrics.jsonl by heading, of the signs of collapse with what to look for.
SCHEDULED = ("learning_rate", "weight_decay", "momentum", "teacher_momentum")
EXACT = (*SCHEDULED, "memory_gib")  # without noise, so without a running mean
HEADINGS = {"online_knn_accuracy": "online kNN accuracy"}  # of other keys: their words
COLLAPSE = {
    "rank_me": "effective rank of the features (RankMe); collapsed: 1",
    "feature_std": "standard deviation of normalized features, × √D; collapsed: 0, uniform: 1",
    "embedding_std": "standard deviation of normalized embeddings, × √D; collapsed: 0, uniform: 1",
    "alignment": "mean squared distance of two views; lower: more alike",
    "uniformity": "log of the mean Gaussian potential of pairs; collapsed: 0, lower: more uniform",
}
SPEED = {"images_per_second": "", "data_wait": "share of a step spent waiting for data"}
SHARES = ("data_wait",)
WARM_UP = ("images_per_second", "data_wait", "step_seconds")  # the first logged step compiles and fills caches


def training_sections(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The sections, as HTML; a key that each run logged at most once is a number, not a chart."""
    metrics, timings = _keys(records, "metrics"), _keys(records, "timings")
    scores = [key for key in metrics if "/" in key or "accuracy" in key]
    main = [key for key in ("loss", *SCHEDULED, "gradient_norm") if key in metrics]
    main[1:1] = [key for key in metrics if key.endswith("loss") and key != "loss"]
    signs = [key for key in COLLAPSE if key in metrics]
    speed = [*(key for key in SPEED if key in timings), *(key for key in timings if key not in SPEED)]
    others = [key for key in metrics if key not in {*scores, *main, *signs}]
    return "".join(
        [
            _section("Scores during training", records, names, "metrics", scores, percent=scores),
            _section("Training", records, names, "metrics", main, large=("loss",)),
            _section("Signs of collapse", records, names, "metrics", signs, words=COLLAPSE),
            _section("Other values", records, names, "metrics", others),
            _section("Speed", records, names, "timings", speed, large=tuple(SPEED), words=SPEED, percent=SHARES),
        ]
    )


def _keys(records: Sequence[RunRecord], kind: str) -> list[str]:
    """The first keys that any run has, in order of appearance."""
    return list(islice(dict.fromkeys(key for record in records for key in getattr(record, kind)), MOST_CHARTS))


def _section(
    title: str,
    records: Sequence[RunRecord],
    names: Sequence[str],
    kind: str,
    keys: Sequence[str],
    *,
    large: Sequence[str] = (),
    words: dict[str, str] | None = None,
    percent: Sequence[str] = (),
) -> str:
    words = words or {}
    drawn: dict[bool, list[str]] = {True: [], False: []}
    numbers = []
    points = max(60, min(POINTS, MOST_POINTS // max(1, len(keys) * len(records))))
    for key in keys:
        series = [getattr(record, kind).get(key) for record in records]
        if max(len(one.values) for one in series if one is not None) < 2:
            numbers.append(_number(key, [(i, one.values[0]) for i, one in enumerate(series) if one], names))
            continue
        lines = [Line(names[i], i, one) for i, one in enumerate(series) if one is not None]
        heading = _heading(key)
        note = words.get(key, "")
        shares = key in percent and all(0 <= value <= 1 for line in lines for value in line.series.values)
        chart = Chart(
            heading,
            lines,
            percent=shares,
            smooth=key not in EXACT,
            warm_up=key in WARM_UP,
            small=key not in large and len(keys) > 1,
            note=note,
        )
        drawn[key in large].append(chart_figure(chart, points))
    content = f"<div class=charts>{''.join(drawn[True])}</div>" * bool(drawn[True])
    content += f"<div class='charts small'>{''.join(drawn[False])}</div>" * bool(drawn[False])
    content += f"<dl class=once>{''.join(numbers)}</dl>" * bool(numbers)
    legend = f"<p class=legend>{''.join(f'<span>{run_name(names, i)}</span>' for i in range(len(names)))}</p>"
    if any(key in WARM_UP for key in keys) and any(drawn.values()):
        content += "<p class=note-line>The axes leave out the first logged step, in which a run warms up.</p>"
    return section(title, legend * (len(names) > 1 and bool(content)) + content)


def _number(key: str, values: list[tuple[int, float]], names: Sequence[str]) -> str:
    """A value that was logged once."""
    said = ", ".join(f"{value:,.4g}" + f" ({escape(names[i])})" * (len(names) > 1) for i, value in values)
    return f"<div><dt>{escape(_heading(key))}</dt><dd>{said}</dd></div>"


def _heading(key: str) -> str:
    """A key as people read it; DATASET/PROTOCOL stays."""
    return HEADINGS.get(key, key if "/" in key else key.replace("_", " "))
