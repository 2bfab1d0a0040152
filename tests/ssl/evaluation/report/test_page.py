import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imsave

from wildfern.ssl.evaluation import read_run, report_page, write_report
from wildfern.ssl.evaluation.report.curves import Chart, Line, _averaged, _running_mean, chart_figure
from wildfern.ssl.evaluation.report.document import CHART_SCRIPTS, FOLDER, MAP_SCRIPTS, PAGE_SCRIPTS, asset
from wildfern.ssl.evaluation.report.series import Series
from wildfern.ssl.evaluation.run_record import PARTS


@pytest.fixture
def run(tmp_path):
    def make(name="run", accuracy=0.5, parts=tuple(PARTS)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        steps = range(1, 51)
        metrics = [
            {"step": s, "loss": 5 / s, "learning_rate": 1e-3, "rank_me": 10.0 + s, "note": "text"} for s in steps
        ]
        row = {"dataset": "digits", "protocol": "knn", "n": 360, "share": True, "detail": ""}
        untrained, pretrained = {**row, "backbone": "random"}, {**row, "backbone": "pretrained", "detail": "a<b"}
        bounds = {"low": accuracy - 0.011, "high": accuracy + 0.021}
        rows = [
            {**untrained, "metric": "accuracy", "value": 0.25, "low": 0.2, "high": 0.3},
            {**untrained, "metric": "balanced_accuracy", "value": 0.26, "low": None, "high": None},
            {**pretrained, "metric": "accuracy", "value": accuracy, **bounds},
            {**pretrained, "metric": "balanced_accuracy", "value": accuracy + 0.03, "low": None, "high": None},
        ]
        written = {
            "recipe.yaml": "method:\n  name: simclr\nmodel:\n  backbone: resnet18\ndata:\n  source: <ifs>\n",
            "environment.json": json.dumps(
                {"wildfern": "0.1", "processes": 2, "versions": {"torch": "2.6"}, "cores": 2}
            ),
            "metrics.jsonl": "\n".join(map(json.dumps, metrics)),
            "timings.jsonl": '{"step": 1, "images_per_second": 1000, "data_wait": 0.25}\n{"step": 2, "images_per_second": 3e3}\n',
            "evaluation.json": json.dumps({"baseline": "random", "protocols": {"knn": "cosine, k=20"}, "rows": rows}),
        }
        for part in parts:
            if part == "views.png":
                imsave(folder / part, np.zeros((4, 4, 3)))
            else:
                (folder / part).write_text(written[part])
        return folder

    return make


class Outline(HTMLParser):
    """Text of the page, the headings, and whether every tag that opens closes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def test_one_run_shows_everything_and_loads_nothing(run, tmp_path):
    page = write_report([run()], tmp_path / "new" / "report.html").read_text()
    outline = Outline(page)
    assert outline.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in outline.links)
    assert "url(http" not in page
    assert "@import" not in page
    text = "".join(outline.text)
    for words in (
        "simclr · resnet18 · <ifs>",
        "Overview",
        "Scores on test",
        "Training",
        "Signs of collapse",
        "Speed",
        "Views",
        "resnet18 pretrained by simclr on <ifs>.",
        "To repeat it, in the folder above (with wildfern 0.1, in 2 processes)",
        "wildfern pretrain run/recipe.yaml --run run-again",
    ):
        assert words in text
    for words in (
        "50.0 %",
        "48.9 to 52.1",
        "balanced accuracy",
        "53.0 %",
        "+27.0",
        "+25.0",
        "baseline",
        "cosine, k=20",
        "versions.torch",
        "2.6",
        "rank me",
        "2,000",
        "25.0 %",
    ):
        assert words in text
    assert "<ifs>" not in page
    assert "prefers-color-scheme: dark" in page
    assert "Missing" not in text
    assert page.count("<figure class=chart>") == 4  # loss, learning rate, rank_me, images/s
    assert "data wait" in text  # logged once: a number
    assert "Map of" not in text
    assert "Corrupted images" not in text


def test_bars_and_intervals_are_drawn_at_their_places(run, tmp_path):
    page = write_report([run()], tmp_path / "report.html").read_text()
    assert '<i style="width: 50.0%;' in page
    assert '<b style="left: 48.9%; width: 3.2%">' in page
    assert "360 test images; a&lt;b" in page


def test_rows_of_earlier_versions_are_shown(run, tmp_path):
    folder = run()
    row = {"dataset": "digits", "protocol": "knn", "detail": ""}
    rows = [
        {**row, "backbone": "random", "accuracy": 0.25, "std": None},
        {**row, "backbone": "pretrained", "accuracy": 0.5, "std": 0.011},
    ]
    (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    text = "".join(Outline(write_report([folder], tmp_path / "report.html").read_text()).text)
    for words in ("50.0 %", "48.9 to 51.1", "+25.0"):
        assert words in text


def test_a_score_that_is_not_a_share_has_no_bar_and_no_percent(run, tmp_path):
    folder = run()
    row = {"dataset": "depth", "protocol": "dense", "metric": "error_m", "n": 5, "share": False, "detail": ""}
    rows = [
        {**row, "backbone": "random", "value": 3.5, "low": 3.25, "high": 4.0},
        {**row, "backbone": "pretrained", "value": 2.25, "low": 2.0, "high": 2.5},
    ]
    (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    page = write_report([folder], tmp_path / "report.html").read_text()
    text = "".join(Outline(page).text)
    for words in ("error m", "2.25", "2 to 2.5", "-1.25"):
        assert words in text
    assert '<i style="width' not in page


def test_runs_are_compared_each_against_its_own_baseline(run, tmp_path):
    folders = [run("a/run", 0.5), run("b/run", 0.2)]
    text = "".join(Outline(write_report(folders, tmp_path / "report.html").read_text()).text)
    for words in ("2 runs compared", "a/run", "b/run", "+25.0", "-5.0"):
        assert words in text


@pytest.mark.parametrize("kept", ["recipe.yaml", "metrics.jsonl"])
def test_missing_parts_are_named(run, tmp_path, kept):
    text = "".join(Outline(write_report([run(parts=(kept,))], tmp_path / "report.html").read_text()).text)
    for part in PARTS:
        assert (f"no {part}" in text) == (part != kept)


def test_broken_parts_are_named_and_the_rest_is_shown(run, tmp_path):
    folder = run()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": 3.25}\n{"step": 3, "lo')
    (folder / "evaluation.json").write_text("{")
    (folder / "recipe.yaml").write_text("a: [")
    record = read_run(folder)
    assert record.metrics["loss"] == Series([2.0], [3.25])
    assert set(record.remarks) == {
        "metrics.jsonl: 1 unreadable line left out",
        "metrics.jsonl: 1 value NaN or infinite",
        "evaluation.json: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "recipe.yaml cannot be read: not valid YAML: expected the node content, but found '<stream end>'",
    }
    assert "3.25" in write_report([record], tmp_path / "report.html").read_text()


def test_scores_of_an_earlier_backbone_are_left_out(run):
    folder = run()
    backbone, evaluation = folder / "backbone.safetensors", folder / "evaluation.json"
    backbone.write_bytes(b"weights")
    stored = json.loads(evaluation.read_text()) | {"backbone_sha256": hashlib.sha256(b"weights").hexdigest()}
    evaluation.write_text(json.dumps(stored))
    assert read_run(folder).evaluation == stored
    backbone.write_bytes(b"later weights")
    record = read_run(folder)
    assert record.evaluation == {}
    assert any("scores of an earlier backbone" in remark for remark in record.remarks)


def test_a_resumed_step_replaces_what_was_written_before(run):
    folder = run()
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 9}\n{"step": 2, "loss": 2}\n')
    assert read_run(folder).metrics["loss"] == Series([1.0, 2.0], [3.0, 2.0])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither recipe\.yaml nor metrics\.jsonl"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ValueError, match="no such folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_same_run_gives_the_same_page(run, tmp_path):
    folder = run()
    pages = [write_report([folder], tmp_path / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_a_report_is_written_as_a_whole_and_follows_no_link_in_a_run_folder(run, tmp_path, monkeypatch):
    folder = run()
    victim, inside, outside = tmp_path / "victim", folder / "report.html", tmp_path / "link.html"
    victim.write_text("precious")
    for link in (inside, outside):
        link.symlink_to(victim)
    write_report([folder], inside)
    page = inside.read_text()
    assert victim.read_text() == "precious"
    assert not inside.is_symlink()
    write_report([folder], outside)
    assert (victim.read_text(), outside.is_symlink()) == (page, True)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(OSError, match=r"No space left on device: '.*report\.html'"):
        write_report([folder], inside)
    assert inside.read_text() == page


def test_long_series_are_averaged_and_smoothed_evenly():
    series = Series(list(range(10)), [float(value) for value in range(10)])
    steps, values = _averaged(series, 4)
    assert steps.tolist() == [1, 4, 7, 9]
    assert values.tolist() == [1, 4, 7, 9]
    np.testing.assert_allclose(_running_mean(np.arange(9.0), 3), np.arange(9.0))  # a straight line stays straight


def chart_data(figure: str) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure)[1])


def test_a_chart_has_its_lines_as_data_and_its_ends_in_words():
    lines = [Line("</script>&<b>", 1, Series([1, 2, 3], [0.1, 0.4, 0.25])), Line("none", 0, Series())]
    figure = chart_figure(Chart("loss <x>", lines))
    assert chart_data(figure)["lines"] == [
        {"name": "</script>&<b>", "color": "var(--run-2)", "x": [1, 2, 3], "y": [0.1, 0.4, 0.25]}
    ]
    assert figure.count("</script>") == 1
    text = "".join(Outline(figure).text)
    assert "loss <x>" in text
    for words in ("0.1step 1", "0.4step 2", "0.25step 3"):  # first and lowest, highest, last
        assert words in text
    assert "from 0.1 to 0.25" in figure
    assert chart_figure(Chart("empty", [Line("none", 0, Series())])) == ""


def test_the_first_logged_step_is_not_on_the_axis_of_speed_and_not_in_its_mean():
    values = [9.0] + [1.0, 2.0] * 20
    line = Line("run", 0, Series(list(range(41)), values))
    data = chart_data(chart_figure(Chart("seconds", [line], smooth=True, warm_up=True)))
    assert (data["low"], data["high"]) == (1, 2)
    assert data["lines"][0]["y"][0] == 9
    assert data["lines"][0]["mean"][0] is None
    assert max(data["lines"][0]["mean"][1:]) <= 2
    assert chart_data(chart_figure(Chart("seconds", [line])))["high"] == 9


def test_scores_over_time_come_before_the_losses_and_signs_of_collapse(run):
    folder = run()
    lines = [
        {"step": n, "loss": 2.0, "my_loss": 1.0, "probe_accuracy": n / 9, "digits/my_knn": 0.5, "x_y": n}
        for n in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = report_page([folder])
    headings = re.findall(r"<h2>([^<]+)</h2>|<figure class=chart><figcaption>([^<]+)<", page)
    found = [heading or chart for heading, chart in headings]
    place = found.index("Scores during training")
    expected = ["probe accuracy", "digits/my_knn", "Training", "loss", "my loss", "Other values", "x y", "Speed"]
    assert found[place + 1 : place + 9] == expected
    assert chart_data(page)["percent"] is True


def test_accuracies_of_online_classifiers_are_charts_in_percent(run):
    folder = run()
    keys = ("online_probe_accuracy", "online_knn_accuracy")
    lines = [{"step": step, **dict.fromkeys(keys, 0.1 * step)} for step in range(5)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = report_page([folder])
    part = page.partition("<h2>Scores during training</h2>")[2].partition("</section>")[0]
    headings = re.findall(r"<figure class=chart><figcaption>([^<]+)<", part)
    assert headings == ["online probe accuracy", "online kNN accuracy"]
    assert part.count("from 0.0 % to 40.0 %") == 2


def test_a_key_that_was_logged_once_is_a_number(run):
    page = report_page([run()])
    assert "data wait</dt><dd>0.25</dd>" in page


def test_rows_have_their_gain_with_its_interval_and_fold_other_metrics(run):
    folder = run()
    stored = json.loads((folder / "evaluation.json").read_text())
    stored["rows"][2] |= {"difference_low": -1.5, "difference_high": 51.5}
    further = {"metric": "brier_score", "value": 0.75, "low": 0.7, "high": 0.8, "share": False, "breakdown": True}
    stored["rows"].append(stored["rows"][2] | further)
    (folder / "evaluation.json").write_text(json.dumps(stored))
    page = report_page([folder])
    assert "<b>+25.0</b><small>-1.5 to +51.5</small>" in page  # not colored: the interval contains 0
    assert "<b class=up title=better>+27.0</b>" in page
    assert page.count("<tbody data-dataset=") == 1
    (details,) = re.findall(r"<summary>2 more metrics</summary>(.*?)</details>", page)
    for words in ("accuracy", "balanced accuracy", "brier score", "0.75"):
        assert words in details
    text = "".join(Outline(page).text)
    assert "48.9 to 52.1; +25.0 points over random (-1.5 to +51.5)" in text


@pytest.mark.parametrize(
    ("metric", "color"),
    [
        ("accuracy", "class=up title=better"),
        ("expected_calibration_error", "class=down title=worse"),
        ("class_accuracy_std", "class=down title=worse"),
        ("estimated_classes", None),
    ],
)
def test_a_gain_is_green_where_it_is_better(run, metric, color):
    folder = run()
    stored = json.loads((folder / "evaluation.json").read_text())
    stored["rows"] = [row | {"metric": metric} for row in stored["rows"][::2]]
    (folder / "evaluation.json").write_text(json.dumps(stored))
    assert f"<b {color}>+25.0</b>".replace(" None", "") in report_page([folder])


def test_a_baseline_alone_has_a_row(run):
    folder = run()
    stored = json.loads((folder / "evaluation.json").read_text())
    stored["rows"] = stored["rows"][:2]
    (folder / "evaluation.json").write_text(json.dumps(stored))
    page = report_page([folder])
    assert page.count("<tbody data-dataset=") == 1
    assert "<i class=own>baseline</i>" in page


def test_corruptions_have_a_curve_over_the_severity_and_bars(run):
    folder = run()
    base = {"dataset": "digits", "protocol": "corruptions (classifier=knn)", "n": 9, "share": True, "detail": ""}
    rows = []
    for backbone, shift in (("random", 0.25), ("pretrained", 0.0)):
        for metric, value in (
            ("corrupted_accuracy", 0.5),
            ("clean_accuracy", 0.75),
            ("fog_accuracy", 0.625),
            ("severity_1_accuracy", 0.5),
            ("severity_3_accuracy", 0.25),
        ):
            rows.append(
                {**base, "backbone": backbone, "metric": metric, "value": value - shift, "low": 0.1, "high": 0.9}
            )
    (folder / "evaluation.json").write_text(json.dumps({"baseline": "random", "protocols": {}, "rows": rows}))
    page = report_page([folder])
    part = page[page.index("<h2>Corrupted images</h2>") : page.index("<h2>Training</h2>")]
    first, second = chart_data(part)["lines"]
    assert (first["name"], first["x"], first["y"]) == ("pretrained", [0, 1, 3], [0.75, 0.5, 0.25])
    assert (second["name"], second["y"]) == ("random", [0.5, 0.25, 0])
    assert part.count("<th scope=row>fog</th>") == 1
    assert "62.5 %" in part


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_from_outside(run):
    page = report_page([run()])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    scripts = re.findall(r'<script id="\w+">(.*?)</script>', page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert len(scripts) == 4
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert "<script>" not in page


def test_pages_have_only_the_scripts_that_they_need(run):
    page = report_page([run(parts=("recipe.yaml",))])
    assert "uPlot" not in page
    assert 'id="report_map"' not in page
    assert len(page) < 40_000


@pytest.mark.parametrize("name", [*PAGE_SCRIPTS, *CHART_SCRIPTS, *MAP_SCRIPTS])
def test_scripts_can_stand_in_a_page(name):
    assert "</script" not in asset(name)
    assert "<!--" not in asset(name)
    for outside in ("fetch(", "XMLHttpRequest", "innerHTML", "eval(", "new Function", "WebSocket"):
        assert outside not in asset(name)


def test_the_library_is_the_published_one_with_its_license(run):
    sums = re.findall(r"^([0-9a-f]{64})  (\S+) ", asset("uplot.txt"), re.MULTILINE)
    assert len(sums) == 2
    for sha256, name in sums:
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == sha256
    page = report_page([run()])
    assert page.count("Permission is hereby granted, free of charge") == 1


def test_images_and_notes_of_a_data_set_are_shown(run, tmp_path):
    folder = run()
    stored = json.loads((folder / "evaluation.json").read_text())
    said = {"train_images": 1258, "train_split": "", "test_images": 1, "test_split": "folder <valid>"}
    stored["rows"] = [row | said for row in stored["rows"]]
    stored["notes"] = {"digits": ["1 class of test has no train image: <fern> (3 test images)"]}
    (folder / "evaluation.json").write_text(json.dumps(stored))
    page = write_report([folder, run("other")], tmp_path / "report.html").read_text()
    text = "".join(Outline(page).text)
    assert text.count("train: 1,258 images · test: 1 image (folder <valid>)") == 1
    assert "digits: 1 class of test has no train image: <fern> (3 test images)" in text
    assert "<fern>" not in page


@pytest.mark.parametrize(
    ("data", "title", "shares"),
    [
        (
            "[{source: folder:me/<mine>, weight: 7.0}, {source: ifs, weight: 3.0}]",
            "70% folder:me/<mine> + 30% ifs",
            ["70.0 %", "30.0 %"],
        ),
        ("[{source: folder:me}, {source: ifs, weight: 3}]", "25% folder:me + 75% ifs", ["25.0 %", "75.0 %"]),
        ("[{source: folder:me}, {source: ifs, weight: many}]", "folder:me + ifs", ["–", "–"]),
        ("[{source: folder:me, weight: 2.0}]", "folder:me", []),
        ("{source: digits}", "digits", []),
    ],
)
def test_sources_of_a_mixture_are_named_with_their_shares(run, data, title, shares):
    folder = run()
    (folder / "recipe.yaml").write_text(f"method:\n  name: simclr\nmodel:\n  backbone: resnet18\ndata: {data}\n")
    page = Outline(report_page([folder]))
    assert f"simclr · resnet18 · {title}" in page.text
    listed = page.text[page.text.index("share of the images") :] if shares else []
    listed = listed[: listed.index("Machine")] if shares else []
    assert [text for text in listed if text.endswith("%") or text == "–"] == shares


def test_licenses_of_the_images_are_told_as_far_as_they_are_recorded(run):
    folder = run()
    sources = "[{source: folder:me}, {source: ifs}, {source: folder:other}]"
    (folder / "recipe.yaml").write_text(f"data: {sources}\n")
    curated = {"licenses": {"CC BY <4.0>": 10, "CC0": 2}}
    data = [{"source": "folder:me", "items": 1012, "files": 3, "curated": curated}, {"source": "ifs", "items": None}]
    (folder / "data.json").write_text(json.dumps([*data, {"source": "folder:other", "items": 7, "files": 7}]))
    page = Outline(report_page([folder]))
    place = page.text.index("licenses") + 1
    assert page.text[place : place + 12] == [
        *("folder:me", "33.3 %", "1,012", "CC BY <4.0> (10), CC0 (2)"),
        *("ifs", "33.3 %", "rendered while training", "none (rendered)"),
        *("folder:other", "33.3 %", "7", "unknown"),
    ]


def test_skipped_files_are_counted_and_the_first_named(run):
    folder = run()
    rows = [{"file": f"a<{number}>.png", "reason": "Truncated"} for number in range(1200)]
    (folder / "skipped.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nbroken\n[1]\n")
    page = Outline(report_page([folder]))
    assert "1,200 files were skipped, because they could not be used:" in page.text
    assert [text for text in page.text if text.endswith("Truncated")] == [f"a<{n}>.png: Truncated" for n in range(5)]
    assert "… and 1,195 more, in skipped.jsonl" in page.text
    assert any("skipped.jsonl: 2 unreadable lines left out" in text for text in page.text)
    (folder / "skipped.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert "1 file was skipped, because it could not be used:" in Outline(report_page([folder])).text
