"""The commands on finished runs: evaluate, neighbors, cluster, export, report."""

from pathlib import Path
from typing import Annotated

import typer

from wildfern.launch.completion import run_words, source_words
from wildfern.launch.plugin_option import PluginOption, run_plugins
from wildfern.launch.startup import Startup
from wildfern.launch.terminal import console, say
from wildfern.printable import printable_lines


def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders", show_default=False, autocompletion=run_words)
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            help="A data set with labels: digits, 'parquet:X image_column=img' or '{source: parquet:X, …}'; repeat for several",
            show_default=False,
            autocompletion=source_words,
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="Also evaluate this network: a timm name or torchvision/NAME; repeat for several", show_default=False
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights of each --backbone, in the same order: a file, a run folder, timm, timm:TAG or random (default: "
            "random)",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Image size in pixels for --backbone (default: the network's own)")
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="How to evaluate: linear,knn,finetune,few_shot,retrieval,clustering,corruptions and others, 'knn k=5' or "
            "'{name: knn, k: 5}'; repeat for several; help: list all with their arguments "
            "(default: linear,knn)",
            show_default=False,
        ),
    ] = None,
    few_shot: Annotated[str, typer.Option(help="Also evaluate with N labels per class, for example 5,20")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each few-label set")] = 5,
    download: Annotated[bool, typer.Option("--download", help="Download data sets that are missing here")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write this evaluation here")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch (default: those of the CPU cores this process may use)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass")] = 256,
    against: Annotated[
        str | None,
        typer.Option(
            help="Compare all others with this row: a run, or a network as it is named in the table (default: the same network "
            "with random weights)",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        str,
        typer.Option(
            help="Folder where features of files are kept for later evaluations, at most 20 GiB; none: nowhere"
        ),
    ] = "auto",
    memory: Annotated[
        float, typer.Option(min=0, help="GiB of features and images in memory; further ones are temporary files")
    ] = 4.0,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write the rows of this evaluation to this CSV file")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write evaluation.json and report.html of this evaluation, of all runs and networks, to this folder",
            show_default=False,
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Evaluate backbones of runs and any other networks on labeled datasets.

    The baseline is the same network with random weights. One run writes its evaluation.json and report.html.
    """
    with Startup() as startup:
        from wildfern.launch.errors import RunError
        from wildfern.launch.evaluate_datasets import Unfinished
        from wildfern.launch.evaluating import NotWritten, evaluate
        from wildfern.launch.output_paths import output_file, write_json_file, writing
        from wildfern.launch.protocols import parse_datasets, parse_protocols
        from wildfern.launch.run_folder import RunFolder

        json_file = json_file and output_file(json_file)
        csv_file = csv_file and output_file(csv_file)
        run_plugins(plugin)
        if protocol == ["help"]:
            from wildfern.launch.protocol_help import protocol_help

            startup.close()
            console.print(protocol_help(), soft_wrap=True, highlight=False)
            return
        try:
            shots = [int(n) for n in few_shot.split(",") if n.strip()]
        except ValueError:
            raise RunError(f"--few-shot must be comma-separated numbers, for example 5,20; got {few_shot!r}") from None
        datasets = parse_datasets(on or [])
        protocols = parse_protocols(["linear,knn"] if protocol is None else protocol)
        named, given = backbone or [], weights or []
        if given and len(given) != len(named):
            raise RunError(
                f"--weights must be given once for each --backbone, in the same order (random for none): got {len(given)} "
                f"for {len(named)}"
            )
        unfinished = None
        try:
            evaluation = evaluate(
                runs,
                datasets,
                protocols,
                shots,
                seeds,
                announce=startup.progress,
                download=download,
                backbones=list(zip(named, given or [None] * len(named), strict=True)),
                size=size,
                say=say,
                batch_size=batch_size,
                threads=threads,
                against=against,
                cache=cache,
                memory_gb=memory,
                out=out,
            )
        except Unfinished as error:
            evaluation, unfinished = error.evaluation, error
    console.print(evaluation.table())
    unwritten = isinstance(unfinished, NotWritten)
    if not unwritten and runs is not None and len(runs) == 1 and RunFolder(runs[0]).is_writable():
        say(f"written to {runs[0] / 'evaluation.json'} and {runs[0] / 'report.html'}")
    elif not unwritten and json_file is None and csv_file is None and out is None:
        say("not written to a file: --out DIR keeps these results, with a report")
    if out is not None:
        say(f"written to {out / 'evaluation.json'} and {out / 'report.html'}")
    if json_file is not None:
        write_json_file(json_file, evaluation.as_json())
        say(f"written to {json_file}")
    if csv_file is not None:
        with writing(csv_file) as path:
            path.write_text(evaluation.as_csv(), encoding="utf-8")
        say(f"written to {csv_file}")
    if unfinished is not None:
        raise unfinished


def neighbors(
    run: Annotated[Path, typer.Argument(help="Run folder", autocompletion=run_words)],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Images: digits, folder:PATH or 'parquet:X image_column=img'; no labels needed (default: those that the run "
            "trained on; if it trained on rendered images only, the first dataset of its evaluation)",
            show_default=False,
            autocompletion=source_words,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write (default: neighbors.html in the run folder)")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=1, max=1000, help="Images whose neighbors are shown, drawn at random")
    ] = 16,
    k: Annotated[int, typer.Option("--k", min=1, max=100, help="Neighbors of each image")] = 8,
    images: Annotated[
        int, typer.Option(min=2, help="Search among at most this many images, spread evenly over the source")
    ] = 3000,
    split: Annotated[str, typer.Option(help="train or test; a folder without these folders is all train")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Another number draws other images")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch (default: those of the CPU cores this process may use)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass")] = 64,
    plugin: PluginOption = None,
) -> None:
    """Show images with their nearest neighbors, in one HTML file.

    Neighbors by cosine similarity of the frozen features of the pretrained network, and of the same network with random weights.
    """
    with Startup() as startup:
        from wildfern.launch.neighbors import write_neighbors
        from wildfern.launch.protocols import parse_datasets

        run_plugins(plugin)
        file = write_neighbors(
            run,
            None if on is None else parse_datasets([on])[0],
            out=out,
            split=split,
            queries=queries,
            k=k,
            images=images,
            seed=seed,
            batch_size=batch_size,
            threads=threads,
            announce=startup.progress,
            say=say,
        )
    say(f"written to {file}")


def cluster(
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Run folder, whose backbone gives the features", show_default=False, autocompletion=run_words
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Number of clusters: at least the batch size")] = 1024,
    out: Annotated[Path, typer.Option(help="File to write")] = Path("clusters.safetensors"),
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            help="Images: digits, folder:PATH or 'parquet:X image_column=img'; no labels needed (default: those that the run "
            "trained on)",
            show_default=False,
            autocompletion=source_words,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Instead of a run: a timm name or torchvision/NAME", show_default=False),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of --backbone: a file, a run folder, timm, timm:TAG or random (default: random)",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Image size in pixels for --backbone (default: the network's own)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of k-means")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch (default: those of the CPU cores this process may use)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in one forward pass")] = 256,
    plugin: PluginOption = None,
) -> None:
    """Cluster training images by features, for guided batches.

    k-means of the frozen features. data.guide=FILE then trains with no two images of one cluster in a batch.
    """
    with Startup() as startup:
        from wildfern.launch.clustering import write_clusters
        from wildfern.launch.errors import RunError
        from wildfern.launch.protocols import parse_datasets

        run_plugins(plugin)
        if backbone is None and (weights is not None or size is not None):
            raise RunError(
                f"{'--weights' if weights is not None else '--size'} belongs to --backbone, which is not given"
            )
        found = write_clusters(
            run,
            None if on is None else parse_datasets([on])[0],
            out=out,
            k=k,
            backbone=None if backbone is None else (backbone, weights),
            size=size,
            seed=seed,
            batch_size=batch_size,
            threads=threads,
            announce=startup.progress,
            say=say,
        )
    skipped = f"; {found.unreadable:,} cannot be read and are in none" if found.unreadable else ""
    say(
        f"written to {found.file}: {found.images:,} images in {found.clusters:,} clusters of {found.smallest:,} to "
        f"{found.largest:,}{skipped}; for batches of at most {found.clusters:,}"
    )


def export(
    run: Annotated[Path, typer.Argument(help="Run folder")],
    format: Annotated[
        str, typer.Option(help="One of timm, torchvision, huggingface, safetensors, onnx, torch_export")
    ] = "timm",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; huggingface: folder (default: exported… in the run folder)"),
    ] = None,
    segmenter: Annotated[
        bool,
        typer.Option(
            "--segmenter",
            help="Export backbone and decoder of a run that segments, from images to probabilities; for onnx and torch_export",
        ),
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Export the pretrained backbone, or with --segmenter the whole segmenter, with a model card.

    What was written is read back, and its features or probabilities are compared with those of the run.
    """
    from wildfern.launch.exporting import export_backbone

    run_plugins(plugin)
    print(
        printable_lines(export_backbone(run, format, out, segmenter))
    )  # without rich, which would wrap and mark up the code


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders")],
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    embedding: Annotated[
        str,
        typer.Option("--map", help="Map of test images: pca, umap (seconds to minutes; pip install 'wildfern[umap]')"),
    ] = "pca",
) -> None:
    """Show runs in one self-contained HTML file.

    What was trained, scores with intervals, test images, a map of features, curves, licenses; of several runs, what differs.
    """
    from wildfern.launch.errors import user_errors
    from wildfern.launch.output_paths import output_file, writing
    from wildfern.ssl.evaluation import read_run, report_page

    out = output_file(out)
    records, left_out = [], []
    with user_errors():
        for run in runs:
            try:
                records.append(read_run(run))
            except ValueError as error:
                left_out.append(error)
        if left_out and not records:
            raise left_out[0]
        page = report_page(records, embedding=embedding)
    for reason in left_out:
        say(f"left out: {reason}")
    for record in records:
        for remark in record.remarks:
            say(f"{record.folder}: {remark}")
    with writing(out) as path:
        path.write_bytes(page.encode("utf-8", "backslashreplace"))
    say(f"written to {out}")
