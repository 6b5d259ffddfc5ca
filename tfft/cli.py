"""The command line: parses, calls one function, prints. Nothing heavy is imported before a verb runs."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfft import MESSAGES, console
from tfft.arguments import FAILED, parser
from tfft.catalog import CATALOG
from tfft.errors import InvalidValueError
from tfft.recipe import Recipe, from_mapping, read_recipe
from tfft.tasks import TASKS

if TYPE_CHECKING:
    from tfft.runs import Run

FAILED_CHECK = 1  # of a check that found a fault

QUICKSTART_TEXTS = ("My parcel says delivered, but there is nothing at the door.", "Why was my card charged twice?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parser(FUNCTIONS).parse_args(arguments)
    try:
        with console.log_to_stderr(options.quiet), console.ctrl_c_is_heard():
            return int(options.verb(options) or 0)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was kept")
    except BrokenPipeError:  # `tfft ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if options.debug:
            raise
        return _failed(console.one_line(error))


def _train(options: argparse.Namespace) -> None:
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Recipe) if hasattr(options, f.name)}
    settings = (read_recipe(options.config) if options.config else {}) | given
    recipe = from_mapping(settings, options.config)
    console.load_tensorflow(options.debug)
    from tfft.pipeline import train

    folder = train(recipe)
    console.score_card(json.loads((folder / "metrics.json").read_text("utf-8")))
    print(f"run folder: {folder}")


def _evaluate(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft.pipeline import evaluate_run

    run = _run(options)
    scores = evaluate_run(run, options.data, options.columns, encoding=options.encoding, bad_rows=options.bad_rows)
    if options.json:
        print(json.dumps(scores, ensure_ascii=False, indent=2))
    else:
        console.scores(options.data, scores)


def _run(options: argparse.Namespace) -> "Run":
    """The run that was named, writing as the flags say."""
    from tfft.runs import load_run, with_decoding

    run = load_run(options.run)
    return with_decoding(run, options.decoding) if options.decoding else run


def _predict(options: argparse.Namespace) -> None:
    if not options.texts and not options.data:
        raise InvalidValueError("nothing to predict: give texts, or a file with --data FILE")
    from tfft.proving import is_export

    folder = Path(options.run)
    if is_export(folder) and options.decoding:
        raise InvalidValueError(f"{folder} is an export, and writes as it was exported. Leave --decoding out")
    if is_export(folder):
        from tfft.answering import answers, inputs_of, read_texts
        from tfft.proving import newest
        from tfft.runtime import Runtime
        from tfft.servable import load

        with console.native_messages_off(options.debug):
            runtime = Runtime()
        servable = load(runtime, newest(folder))
        texts = _grouped(options.texts, inputs_of(servable))
        texts += (
            read_texts(options.data, inputs_of(servable), options.columns, options.encoding) if options.data else []
        )
        found = answers(servable, texts)
        servable.close()
    else:
        console.load_tensorflow(options.debug)
        from tfft import pipeline

        run, reading = _run(options), {"encoding": options.encoding, "bad_rows": options.bad_rows}
        texts = _grouped(options.texts, run.task.inputs)
        texts += pipeline.read_texts(run, options.data, options.columns, **reading) if options.data else []
        found = pipeline.predict_texts(run, texts)
    for text, answer in zip(texts, found, strict=True):
        console.answer(text, answer, options.json)


def _grouped(texts: Sequence[str], names: Sequence[str]) -> list[dict[str, str]]:
    """The texts of the command line as rows of the texts a model is asked with."""
    if len(texts) % len(names):
        raise InvalidValueError(
            f"expected {', '.join(names)} for every row, in this order. Received: {len(texts)} text(s)"
        )
    groups = [texts[i : i + len(names)] for i in range(0, len(texts), len(names))]
    return [dict(zip(names, group, strict=True)) for group in groups]


def _export(options: argparse.Namespace) -> None:
    if options.format == "litert" and options.precision != "float32":
        raise InvalidValueError(f"--format litert is float32 alone. Received: --precision {options.precision}")
    console.load_tensorflow(options.debug)
    from tfft.pipeline import validation_rows

    run = _run(options)
    rows = validation_rows(run, options.validation) if options.precision != "float32" else None
    settings = {"precision": options.precision, "rows": rows, "bound": options.bound / 100}
    if options.format == "litert":
        from tfft.litert_export import export_litert

        print(export_litert(run, options.folder, options.model_version))
        return
    if options.format == "onnx":
        from tfft.onnx_export import export_onnx

        print(export_onnx(run, options.folder, options.model_version, **settings))
        return
    from tfft.export import export_saved_model

    print(export_saved_model(run, options.folder, options.model_version, serving=options.serving, **settings))


def _check(options: argparse.Namespace) -> int:
    from tfft.proving import newest, prove

    folder = newest(Path(options.folder))
    found = prove(folder, options.serving)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], ensure_ascii=False, indent=2))
    else:
        console.findings(folder, found)
    return FAILED_CHECK if any(one.cure for one in found) else 0


def _serve(options: argparse.Namespace) -> None:
    try:
        from tfft import serving
        from tfft.runtime import Runtime
        from tfft.server import Limits
    except ImportError as error:
        raise InvalidValueError(f"{error.name} is not installed. `pip install 'tfft[serve]'` brings it") from None
    limits = Limits(options.max_body, options.max_rows, options.max_text, options.timeout)

    def runtime() -> Runtime:
        with console.native_messages_off(options.debug):
            return Runtime()

    serving.serve(
        runtime,
        Path(options.folder),
        limits,
        host=options.host,
        port=options.port,
        token=options.token or os.environ.get("TFFT_TOKEN"),
        joined=options.joined,
        max_rows=options.max_batch,
        max_waiting=options.max_waiting,
        ready=lambda address: print(f"serving {options.folder} at {address} (Ctrl-C ends it)", flush=True),
    )


def _quickstart(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft.pipeline import predict_texts, train
    from tfft.runs import load_run

    out = Path(options.out) if options.out else _free(Path("runs/quickstart"))
    folder = train(Recipe(data=str(MESSAGES), out=str(out)))
    console.score_card(json.loads((folder / "metrics.json").read_text("utf-8")))
    for text, answer in zip(QUICKSTART_TEXTS, predict_texts(load_run(folder), QUICKSTART_TEXTS), strict=True):
        console.answer({"text": text}, answer)
    print(f"run folder: {folder}\nnext:       tfft predict {folder} 'your own text'\n            tfft train --help")


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _backbones(options: argparse.Namespace) -> None:
    from tfft.backbones import on_this_machine

    rows = [
        (
            name,
            entry.family,
            entry.languages,
            f"{entry.millions:.1f} M",
            f"{entry.megabytes} MB",
            entry.licence,
            "yes" if on_this_machine(name) else "no",
            entry.good_for,
        )
        for name, entry in CATALOG.items()
    ]
    columns = ("name", "family", "languages", "parameters", "on disk", "licence", "here", "good for")
    console.table(columns, rows, right=("parameters", "on disk"))
    print("Any KerasHub text preset, hf://owner/name, kaggle://... or folder works as well.")


def _advise(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft.pipeline import advise_data

    poolings, depths = advise_data(
        options.data,
        options.backbone,
        out=options.out,
        columns=options.columns,
        encoding=options.encoding,
        bad_rows=options.bad_rows,
    )
    console.table(
        ("pooling", "probe's accuracy"), [(str(a.choice), f"{a.accuracy:.4f}") for a in poolings], ("probe's accuracy",)
    )
    rows = [(str(a.choice), f"{a.accuracy:.4f}", f"{a.cost:.2f}") for a in depths]
    columns = ("frozen blocks", "probe's accuracy", "cost of an epoch")
    console.table(columns, rows, columns)
    print(f"--pooling {poolings[0].choice} looks best while everything is frozen. Picture: {options.out}")
    print("Probes rank poolings as training does; frozen blocks they do not (docs/speed.md): train those you consider.")


def _embed(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft import caching, embedding

    embedding.refuse_other_kinds(options.out)
    found = embedding.embed(
        options.data,
        options.backbone,
        pooling=options.pooling,
        max_length=options.max_length,
        columns=options.columns,
        encoding=options.encoding,
        bad_rows=options.bad_rows,
        cache=caching.Cache(options.cache_dir or caching.default_folder()),
    )
    embedding.write(found, options.out)
    print(f"{len(found.rows):,} vectors of {found.vectors.shape[1]} numbers: {options.out}")


def _nearest(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft import embedding

    known = embedding.read_vectors(options.vectors)
    for text, rows in zip(options.texts, embedding.nearest(known, options.texts, options.top), strict=True):
        records = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
        console.neighbours(text, records, known.about["text"], options.json)


def _doctor(options: argparse.Namespace) -> int:
    from tfft import doctor

    found = doctor.examine_file(options.file)
    console.faults(options.file, found)
    if options.fix:
        doctor.fix_file(options.file, options.fix)
        print(f"corrected copy: {options.fix}; {sum(not one.edits for one in found)} faults are left to you")
    return int(bool(found))


def _convert(options: argparse.Namespace) -> None:
    console.load_tensorflow(options.debug)
    from tfft import legacy

    model = legacy.convert(options.source, options.target)
    layers, size = len(model.layers), model.count_params()
    print(f"{options.target}: {layers} layers, {size:,} parameters, {model.input_shape} -> {model.output_shape}")


def _cache(options: argparse.Namespace) -> None:
    from tfft import store
    from tfft.caching import default_folder

    folder = Path(options.cache_dir) if options.cache_dir else default_folder()
    if options.action == "clear":
        print(f"{store.clear(folder) / 1e6:,.1f} MB freed in {folder}")
        return
    found = store.entries(folder)
    rows = [
        (
            e.path.name[:12],
            e.description,
            f"{e.rows:,}",
            f"{e.bytes / 1e6:,.1f} MB",
            time.strftime("%F %H:%M", time.localtime(e.used)),
        )
        for e in found
    ]
    console.table(("entry", "what", "rows", "size", "last used"), rows, right=("rows", "size", "last used"))
    print(f"{sum(e.bytes for e in found) / 1e6:,.1f} MB in {folder}")


def _tasks(options: argparse.Namespace) -> None:
    for name, summary in TASKS.items():
        print(f"{name}  {summary}")
    print("\nSeveral targets of one text: --task topic=text-classification,stars=text-regression*0.5")


FUNCTIONS = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "check": _check,
    "serve": _serve,
    "quickstart": _quickstart,
    "advise": _advise,
    "embed": _embed,
    "nearest": _nearest,
    "convert": _convert,
    "doctor": _doctor,
    "cache": _cache,
    "backbones": _backbones,
    "tasks": _tasks,
}


def _failed(message: str) -> int:
    print(f"tfft: {message}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
