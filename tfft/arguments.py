"""What the command line takes: verbs and their flags. Nothing heavy is imported."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import NoReturn

from tfft import __version__
from tfft.defaults import FROZEN, SERVING, THAWED
from tfft.recipe import Recipe, kinds_of

FAILED = 2  # exit code of everything that ends in a line instead of a result


def _train(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--config", metavar="FILE", help="settings from a JSON file, such as a run's config.json; flags override"
    )
    _add_recipe_flags(sub)


def _evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="run folder")
    sub.add_argument("--data", required=True, help="rows with labels")
    _add_reading_flags(sub)
    _add_decoding_flag(sub)
    sub.add_argument("--json", action="store_true", help="print all metrics as JSON")


def _predict(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="run folder, or an export's")
    sub.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts to answer; of a task of several texts, each row's in order"
    )
    sub.add_argument("--data", help="a file of texts")
    _add_reading_flags(sub)
    _add_decoding_flag(sub)
    sub.add_argument("--json", action="store_true", help="print one JSON object a text")


def _export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("run", help="run folder")
    sub.add_argument("folder", help="the model's folder, such as saved_models/sentiment")
    sub.add_argument("--model-version", type=int, metavar="N", help="version number; the next free one by default")
    sub.add_argument(
        "--format", default="savedmodel", choices=("savedmodel", "onnx", "litert"), help="default savedmodel"
    )
    sub.add_argument("--precision", default="float32", choices=("float32", "int8"), help="default float32")
    sub.add_argument(
        "--bound", type=float, default=0.5, metavar="POINTS", help="int8 may move the score so far (default 0.5)"
    )
    sub.add_argument("--validation", metavar="FILE", help="rows that judge int8; those of training by default")
    _add_decoding_flag(sub)
    _add_serving_flag(sub)


def _check(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", help="a model's folder, whose highest version is checked, or a version's")
    _add_serving_flag(sub)
    sub.add_argument("--json", action="store_true", help="print what was found as JSON")


def _serve(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", help="a folder of models, such as saved_models, or one model's")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, this machine alone)")
    sub.add_argument("--port", type=int, default=8501, help="port; 0 for a free one (default 8501)")
    sub.add_argument("--token", help="bearer token clients must send; needed for any other host (or TFFT_TOKEN)")
    sub.add_argument("--joined", action=argparse.BooleanOptionalAction, default=True, help="join waiting requests")
    sub.add_argument("--max-batch", type=int, default=64, metavar="ROWS", help="rows joined at most (default 64)")
    sub.add_argument(
        "--max-waiting", type=int, default=1024, metavar="ROWS", help="rows that wait; then 429 (default 1024)"
    )
    sub.add_argument(
        "--max-rows", type=int, default=1024, metavar="ROWS", help="rows of a request; then 413 (default 1024)"
    )
    sub.add_argument(
        "--max-text", type=int, default=100_000, metavar="BYTES", help="of a text; then 413 (default 100000)"
    )
    sub.add_argument(
        "--max-body", type=int, default=8 * 2**20, metavar="BYTES", help="of a request; then 413 (default 8 MiB)"
    )
    sub.add_argument(
        "--timeout", type=float, default=30.0, metavar="SECONDS", help="of a request; then 504 (default 30)"
    )


def _quickstart(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", help="run folder; runs/quickstart, runs/quickstart-2, ... by default")


def _advise(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("data", help="labelled rows, as for train")
    sub.add_argument("--backbone", default="minilm-l6", help="as for train (default minilm-l6)")
    sub.add_argument("--out", default="advice.png", metavar="FILE", help="picture to write (default advice.png)")
    _add_reading_flags(sub)


def _doctor(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", help=".py or .ipynb; it is read, never run")
    sub.add_argument("--fix", metavar="FILE", help="write a corrected copy there; it must not exist")


def _convert(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("source", help=".h5, .hdf5 or .keras of Keras 1 to 3")
    sub.add_argument("target", help=".keras file to write; must not exist")


def _embed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("data", help="a file of texts")
    sub.add_argument("--out", required=True, metavar="FILE", help="vectors to write, .parquet")
    sub.add_argument("--backbone", default="minilm-l6", help="as for train, or a run's folder (default minilm-l6)")
    sub.add_argument(
        "--pooling", choices=("mean", "cls", "max", "pooled"), help="by default what the backbone was trained with"
    )
    sub.add_argument("--max-length", type=int, metavar="TOKENS", help="longest text; all that can be read by default")
    sub.add_argument("--cache-dir", metavar="DIR", help="where vectors are kept for the next time")
    _add_reading_flags(sub)


def _nearest(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("vectors", help="a file that embed wrote")
    sub.add_argument("texts", nargs="+", metavar="TEXT", help="texts to compare with")
    sub.add_argument("--top", type=int, default=5, metavar="N", help="rows for each (default 5)")
    sub.add_argument("--json", action="store_true", help="print one JSON object a row")


def _cache(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=("list", "clear"), help="list what is stored, or remove it")
    sub.add_argument("--cache-dir", metavar="DIR", help="the cache's folder; under the user's cache folder by default")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {message} ({self.prog} --help shows what it takes)\n")


def _add_recipe_flags(sub: argparse.ArgumentParser) -> None:
    for field in dataclasses.fields(Recipe):
        kinds = kinds_of(field.name)
        flag, text = f"--{field.name.replace('_', '-')}", field.metadata["help"].replace("%", "%%")
        if bool in kinds:
            sub.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
            continue
        shown = f" (default {field.default})" if field.default not in (None, "", ()) else ""
        if field.name in FROZEN:
            shown = f" (default {FROZEN[field.name]}; {THAWED[field.name]} when the backbone learns)"
        kind = int if int in kinds else float if float in kinds else _comma_list if tuple in kinds else str
        sub.add_argument(flag, type=kind, default=argparse.SUPPRESS, metavar=field.name.upper(), help=text + shown)


def _add_reading_flags(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--columns", type=_pairs, default={}, metavar="NAME=COLUMN,...", help="the data's columns; known by default"
    )
    sub.add_argument("--encoding", default="utf-8", help="of text files (default utf-8)")
    sub.add_argument("--bad-rows", default="stop", choices=("stop", "drop"), help="unusable rows: stop, or drop them")


def _add_decoding_flag(sub: argparse.ArgumentParser) -> None:
    text = "how a text is written, where the run's own is not wanted, such as beams=4,length_penalty=1"
    sub.add_argument("--decoding", type=_pairs, default={}, metavar="NAME=VALUE,...", help=text)


def _add_serving_flag(sub: argparse.ArgumentParser) -> None:
    text = f"oldest TensorFlow Serving it must load in (default {SERVING[0]})"
    sub.add_argument("--serving", choices=SERVING, default=SERVING[0], help=text)


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _comma_list(text)]
    if not all(name and column for name, _, column in pairs):
        raise argparse.ArgumentTypeError(f"expected pairs such as text=review. Received: {text!r}")
    return {name: column for name, _, column in pairs}


# verb -> (what it does, what adds its flags)
VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None] | None]] = {
    "train": ("train on text and write a run folder", _train),
    "evaluate": ("score a run on labelled text", _evaluate),
    "predict": ("answer texts with a run or an export", _predict),
    "export": ("export a run as a SavedModel for TensorFlow Serving", _export),
    "check": ("prove that an export loads and answers as TensorFlow Serving wants it", _check),
    "serve": ("serve exports on this machine as TensorFlow Serving does, with a page to try them", _serve),
    "quickstart": ("train on the embedded customer messages: a first run in a minute", _quickstart),
    "advise": ("probe poolings and depths for text classification on your data", _advise),
    "embed": ("write a vector for each text, to search and compare by", _embed),
    "nearest": ("find the texts in a file of vectors that are nearest to others", _nearest),
    "doctor": ("read old fine-tuning code, and say what is wrong with it today", _doctor),
    "convert": ("write a model of any old Keras as one of Keras 3", _convert),
    "cache": ("list or clear the stored outputs of frozen layers", _cache),
    "backbones": ("list the backbones tfft has short names for", None),
    "tasks": ("list the tasks", None),
}


def parser(functions: Mapping[str, Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
    """The parser of all verbs; `verb` of what it parsed is the verb's function.

    Args:
        functions: verb -> what runs it.
    """
    top: argparse.ArgumentParser = _Parser(
        prog="tfft", description="Fine-tune pretrained language models on TensorFlow and Keras 3."
    )
    top.add_argument("--version", action="version", version=f"tfft {__version__}")
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks and TensorFlow's own messages")
    common.add_argument("--quiet", action="store_true", help="warnings and results only")
    for name, (text, add_flags) in VERBS.items():
        sub = verbs.add_parser(name, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(verb=functions[name])
        if add_flags is not None:
            add_flags(sub)
    return top
