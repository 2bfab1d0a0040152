"""Sections of the report on single test images: classes, confusions, confidence, mistakes, neighbors, maps, segmentations."""

from collections.abc import Iterator, Sequence

from wildfern.ssl.evaluation.evaluator import SegmentationDetails
from wildfern.ssl.evaluation.report.classes import class_table, confusions, group_tables, labeled_predictions
from wildfern.ssl.evaluation.report.filters import filters_png, first_filters
from wildfern.ssl.evaluation.report.image_details import ImageDetails, PatchMaps, Predicted, read_details
from wildfern.ssl.evaluation.report.images import mistakes, neighbors, usable_jpegs
from wildfern.ssl.evaluation.report.map import map_figure
from wildfern.ssl.evaluation.report.parts import escape, folded, run_name, section
from wildfern.ssl.evaluation.report.patch_maps_table import patch_maps_notes, patch_maps_table
from wildfern.ssl.evaluation.report.positions import Embedding
from wildfern.ssl.evaluation.report.reliability import reliability_diagram
from wildfern.ssl.evaluation.report.segmentation import segmentation_part
from wildfern.ssl.evaluation.result import EvaluationResult
from wildfern.ssl.evaluation.run_record import RunRecord
from wildfern.ssl.evaluation.score_words import short_name

MOST_DATASETS = 8
MOST_IMAGES = 1_000_000  # of a data set
MOST_MAPS = 8  # of a page: browsers keep about 16 of WebGL
MOST_RUNS = 4  # of which images are shown
MOST_PROTOCOLS = 8
NOT_SHOWN = "Details of single images are shown of the first {shown} of {runs} runs; each run's own report has its own."


def details_sections(records: Sequence[RunRecord], names: Sequence[str], embedding: Embedding) -> str:
    """For each data set sections on its test images, with segmentations, feature maps and a map of all.

    Nothing without stored details.
    """
    images: dict[str, list[str]] = {}
    segmented: dict[str, list[str]] = {}
    patches: dict[str, list[tuple[str, PatchMaps]]] = {}
    maps: dict[str, list[str]] = {}
    for index, record in enumerate(records[:MOST_RUNS]):
        result = EvaluationResult.from_json(record.evaluation)
        heading = f"<h3>{run_name(names, index)}</h3>" * (len(records) > 1)
        for dataset in list(dict.fromkeys(row["dataset"] for row in result.rows))[:MOST_DATASETS]:
            try:
                details = read_details(record.folder, dataset)
                if details is not None and len(details) > MOST_IMAGES:
                    raise ValueError(
                        f"details of {len(details):,} test images, more than {MOST_IMAGES:,}, are not shown"
                    )
            except ValueError as error:
                images.setdefault(dataset, []).append(f"{heading}<p class=note>{escape(str(error))}</p>")
                continue
            if details is None:
                continue
            thumbnails = usable_jpegs(details.thumbnails)
            found = "".join(_parts(details, result, thumbnails))
            images.setdefault(dataset, []).append(f"{heading}{found}" * bool(found))
            if found := "".join(_segmentations(details, result)):
                segmented.setdefault(dataset, []).append(f"{heading}{found}")
            if details.patch_maps is not None:
                backbones = _ordered(result, list(details.patch_maps.components))
                if found := patch_maps_table(details, backbones, thumbnails):
                    patches.setdefault(dataset, []).append((f"{heading}{found}", details.patch_maps))
            backbones = _ordered(result, list(details.map_features))
            figure = ""
            if sum(map(len, maps.values())) < MOST_MAPS:
                figure = map_figure(details, backbones, thumbnails, embedding)
            if figure:
                maps.setdefault(dataset, []).append(f"{heading}{figure}")
    note = f"<p class=note-line>{NOT_SHOWN.format(shown=MOST_RUNS, runs=len(records))}</p>" * (len(records) > MOST_RUNS)
    sections = []
    for dataset, parts in images.items():
        content = "".join(parts)
        sections.append(section(f"Test images of {escape(dataset)}", content + note * bool(content)))
        content = "".join(segmented.get(dataset, []))
        sections.append(section(f"Segmentation of {escape(dataset)}", content + note * bool(content)))
        shown = patches.get(dataset, [])
        content = "".join(found for found, _ in shown) + patch_maps_notes([one for _, one in shown])
        sections.append(section(f"Feature maps of {escape(dataset)}", content))
        sections.append(section(f"Map of {escape(dataset)}", "".join(maps.get(dataset, []))))
    return "".join(sections)


def filters_section(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The first layer of each run's backbone."""
    figures = []
    for index, record in enumerate(records[:MOST_RUNS]):
        try:
            found = first_filters(record.folder)
        except (OSError, ValueError):  # `RunRecord.remarks` and `wildfern evaluate` say what is wrong with the file
            continue
        if found is None:
            continue
        name, filters = found
        uri, width, height = filters_png(filters)
        said = f"{min(len(filters), 256)} of {len(filters)}" if len(filters) > 256 else f"{len(filters)}"
        words = f"{said} filters of {filters.shape[2]} × {filters.shape[3]} pixels, {name}"
        run = f"{run_name(names, index)}: " * (len(records) > 1)
        scale = max(1, min(900 // width, 24))
        figures.append(
            f'<figure class=filters><img alt="{escape(words)}" width={width * scale} height={height * scale} src="{uri}">'
            f"<figcaption>{run}{escape(words)}. Gray is 0; each is scaled to its own largest value.</figcaption></figure>"
        )
    return section("Filters of the first layer", "".join(figures))


def _parts(details: ImageDetails, result: EvaluationResult, thumbnails: dict[int, str]) -> Iterator[str]:
    protocols: dict[str, dict[str, Predicted]] = {}
    for (protocol, backbone), found in details.predictions.items():
        if found.ranked.shape[1]:
            protocols.setdefault(protocol, {})[backbone] = found
    for number, (protocol, by_backbone) in enumerate(list(protocols.items())[:MOST_PROTOCOLS]):
        compared = {name: by_backbone[name] for name in _ordered(result, list(by_backbone))}
        content = "".join(_protocol(details, compared, thumbnails))
        yield folded(f"Predictions of {escape(short_name(protocol))}", content, is_open=number == 0)
    ordered = _ordered(result, list(details.neighbors.items)) if details.neighbors is not None else []
    nearest = neighbors(details, ordered, thumbnails, usable_jpegs(details.train_thumbnails))
    said = "<p class=note-line>By cosine similarity; framed: of the same class as the test image.</p>"
    yield folded("Nearest train images", said + nearest) if nearest else ""


def _segmentations(details: ImageDetails, result: EvaluationResult) -> Iterator[str]:
    """A part for each protocol; those behind the first one are folded."""
    protocols: dict[str, dict[str, SegmentationDetails]] = {}
    for (protocol, backbone), found in details.segmentations.items():
        protocols.setdefault(protocol, {})[backbone] = found
    for number, (protocol, by_backbone) in enumerate(list(protocols.items())[:MOST_PROTOCOLS]):
        part = segmentation_part({name: by_backbone[name] for name in _ordered(result, list(by_backbone))})
        yield folded(f"{escape(short_name(protocol))}", part, is_open=number == 0)


def _protocol(details: ImageDetails, by_backbone: dict[str, Predicted], thumbnails: dict[int, str]) -> Iterator[str]:
    """Classes and groups of all backbones; of the first one also confusions, confidence and mistakes."""
    name, found = next(iter(by_backbone.items()))
    if classes := class_table(details, by_backbone):
        yield f"<h3>Accuracy by class, worst first</h3>{classes}"
    for column, groups in group_tables(details, by_backbone).items():
        yield f"<h3>Accuracy by {column}</h3>{groups}"
    shown = escape(name, 200)
    if confused := confusions(details, found):
        yield f"<h3>Confusions of {shown}</h3>{confused}"
    predictions, places = labeled_predictions(details, found)
    if found.confidence is not None and len(places):
        diagram = reliability_diagram(found.confidence[places], predictions.right.numpy())
        yield f"<h3>Confidence of {shown}</h3>{diagram}"
    if wrong := mistakes(details, found, thumbnails):
        which = "Most confident mistakes" if found.confidence is not None else "Mistakes"
        yield f"<h3>{which} of {shown}</h3>{wrong}"


def _ordered(result: EvaluationResult, backbones: list[str]) -> list[str]:
    """The baseline, which is first in results, last."""
    return sorted(backbones, key=result.is_baseline)
