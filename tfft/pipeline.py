"""The straight line, end to end: a recipe to a run folder, and a run folder to scores and answers."""

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf

from tfft import arithmetic, backbones, caching, data, lora, plots, runs, tokenizing
from tfft.advising import Advice, advise
from tfft.errors import DataError, InvalidValueError, NotFoundError
from tfft.evaluation import answers, evaluate, predict
from tfft.examples import Examples, count, lengths
from tfft.freezing import freeze
from tfft.reading import Source
from tfft.recipe import OPTIONS, Recipe, as_json, columns_of, from_mapping, resolve
from tfft.runs import Run
from tfft.seeding import set_seed
from tfft.tasks import get_task
from tfft.tasks.task import Answer, Facts, Scores, Task, answering_model, on_backbone
from tfft.training import as_columns, fit

log = logging.getLogger(__name__)

WHOLE = 0.999  # share of texts that are read whole, by default at least
WINDOW = 384  # tokens, by default at most: as in BERT's own question answering
TEXTS = ("data", "validation", "test", "out", "backbone", "freeze", "cache_dir")


def train(recipe: Recipe | None = None, **settings: Any) -> Path:
    """Train as a recipe says and write the run folder.

    Args:
        recipe: all settings; or give them by name. `tfft.Recipe` lists them, `data` and `out` are needed.

    Returns:
        The run folder, whole: `tfft.runs` says what is in it.

    Raises:
        TfftError: one line that says what was expected, what was found and what to do. Nothing is left behind.

    Examples:
        folder = tfft.train(data="T.csv", freeze="all", out="runs/x")
    """
    if recipe is None:
        plain = (os.PathLike, int)  # a Path, a number of blocks: in Python one need not write strings
        texts = {n: str(v) for n, v in settings.items() if n in TEXTS and isinstance(v, plain) and v is not True}
        recipe = from_mapping(settings | texts)
    runs.refuse_existing(recipe.out)
    if recipe.deterministic:
        keras.utils.set_random_seed(recipe.seed)  # deterministic ops refuse to run unseeded
        tf.config.experimental.enable_op_determinism()
    seconds: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        with _timed(seconds, "load"):
            task = get_task(recipe.task)
            _options(recipe, task)  # better refused now than after loading
            policy = recipe.freeze or (task.freeze if recipe.lora is None else "none")
            lora.check_policy(policy, recipe.lora)
            splits = _load_data(recipe, task)
            folder = backbones.resolve(recipe.backbone)
            backbone, tokenizer = backbones.load_backbone(folder)
            task = on_backbone(task, backbone, tokenizer)
            recipe = dataclasses.replace(recipe, freeze=policy, **_options(recipe, task))
            facts = task.learn(splits["train"], **{name: getattr(recipe, name) for name in task.options})
            freeze(backbone, policy)
            if recipe.lora is not None:
                lora.adapt(backbone, recipe.lora)
            runs.check_space(recipe.out, backbone)
            recipe = dataclasses.replace(recipe, precision=arithmetic.choose(recipe.precision))
            stack.enter_context(arithmetic.arithmetic(recipe.precision))
        with _timed(seconds, "prepare"):
            repeated = data.duplicates(splits, task.inputs, task.target)
            log.info(
                "rows: %s; exact duplicates: %s", _listed({n: len(r) for n, r in splits.items()}), _listed(repeated)
            )
            examples = _encode(splits, task, tokenizer, facts, recipe)
            recipe = _resolved(recipe, task, backbone, folder, examples["train"])
            examples, truncated = _cut(examples, task, tokenizer, recipe.max_length or 0, recipe.long_rows)
        if task.warm:
            with _timed(seconds, "warm"):
                task.warm(backbone, examples["train"], pooling=recipe.pooling, seed=recipe.seed)
                freeze(backbone, "all")
        with _timed(seconds, "train"):
            set_seed(recipe.seed)  # for the head's initial weights
            model = task.head(backbone, facts, pooling=recipe.pooling, dropout=recipe.dropout)
            place = recipe.cache_dir or caching.default_folder()
            cache = caching.Cache(place, recipe.cache, recipe.cache_limit_gb, recipe.cache_dtype)
            settings = _fit_settings(recipe, task, tokenizer, facts)
            if not task.metrics and "validation" in splits:  # what Keras has no metric for is scored after every epoch
                settings["score"] = _scorer(task, examples["validation"], splits["validation"], facts)
            before: dict[str, Scores] = {}
            if task.by_likelihood:  # what is pretrained can be judged already
                _, before = _judged(model, splits, examples, task, facts, cache)
                log.info("before training: %s", _said(before, task.headline[0]))
            history = fit(model, examples["train"], examples.get("validation"), cache=cache, **settings)
        with _timed(seconds, "evaluate"):
            facts, scores = _judged(model, splits, examples, task, facts, cache)
            run = Run(model, tokenizer, task, facts, as_json(recipe))
            if task.samples:
                for name, found in scores.items():
                    found["samples"] = task.samples(functools.partial(predict_texts, run), splits[name], facts)
    with runs.new_folder(recipe.out) as scratch:
        with _timed(seconds, "write"):
            runs.save_run(scratch, run, backbone, as_columns(history))
            trained = recipe.pooling if task.warm or backbone.trainable_variables else None
            backbones.keep_pooling(folder, scratch / "preset", trained)
            draw(scores.get("test", {}), scratch / "confusion.png")
            for name, found in scores.items():
                write_samples(found, scratch / f"samples_{name}.csv")
        metrics = {
            **scores,
            **({"before": before} if before else {}),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "rows": {name: len(rows) for name, rows in splits.items()},
            "duplicates": repeated,
            "truncated": truncated,
        }
        runs.write_json(scratch / "metrics.json", metrics)
    return Path(recipe.out)


def _options(recipe: Recipe, task: Task) -> dict[str, Any]:
    """Settings that only some tasks have, with the task's defaults; raises where it has none of that name."""
    foreign = [name for name in OPTIONS if name not in task.options and getattr(recipe, name) is not None]
    if foreign:
        names = ", ".join(foreign)
        if not set(foreign) - set(get_task(task.name).options):
            raise InvalidValueError(f"{task.name} has no {names} on a backbone with a decoder of its own. Leave it out")
        raise InvalidValueError(f"{task.name} has no {names}. Leave it out, or choose another task")
    if task.answering and recipe.monitor == "score":
        raise InvalidValueError(
            f"monitor=score would have {task.name} write every validation text after every epoch. Use loss"
        )
    return {name: default for name, default in task.options.items() if getattr(recipe, name) is None}


def _judged(
    model: keras.Model,
    splits: data.Splits,
    examples: dict[str, Examples],
    task: Task,
    facts: Facts,
    cache: caching.Cache | None,
) -> tuple[Facts, dict[str, Scores]]:
    """The scores of the held-out rows, and the facts with what the validation rows fix."""
    scores = {}
    model = model if task.by_likelihood else answering_model(task, model, facts)
    if "validation" in splits:
        rows, encoded = splits["validation"], examples["validation"]
        outputs = predict(model, encoded, cache=cache, description="validation rows")
        facts = task.tune(outputs, encoded, rows, facts) if task.tune else facts
        scores["validation"] = task.score(outputs, encoded, rows, facts)
    if "test" in splits:
        scores["test"] = evaluate(model, splits["test"], examples["test"], task, facts, cache)
    return facts, scores


def _said(scores: Mapping[str, Scores], metric: str) -> str:
    return ", ".join(f"{split} {metric} {found[metric]:.2f}" for split, found in scores.items())


def advise_data(
    source: Source, backbone: str = "minilm-l6", *, out: str | os.PathLike[str] | None = None, **reading: Any
) -> tuple[list[Advice], list[Advice]]:
    """Probe poolings and depths on data before any training, and draw what was found.

    Args:
        source: rows, as `tfft.load_data` takes them.
        backbone: as `load_backbone` takes it.
        out: PNG to write; nothing is drawn by default.
        **reading: `columns`, `encoding`, `bad_rows`, `seed` as in `tfft.load_data`.

    Returns:
        (poolings, best first; depths), as `tfft.advising.advise` gives them.

    Examples:
        poolings, depths = tfft.advise_data("T.csv", out="advice.png")
    """
    task = get_task("text-classification")
    splits = data.load_data(source, task=task, **reading)
    facts = task.learn(splits["train"])
    folder = backbones.resolve(backbone)
    model, tokenizer = backbones.load_backbone(folder)
    recipe = Recipe(data=str(source), out="-", backbone=backbone)
    examples = _encode({name: splits[name] for name in ("train", "validation")}, task, tokenizer, facts, recipe)
    length = tokenizing.choose_length(lengths(examples["train"].x), getattr(model, "max_sequence_length", None))
    examples, _ = _cut(examples, task, tokenizer, length)
    with arithmetic.arithmetic(arithmetic.choose()):
        poolings, depths = advise(model, examples["train"], examples["validation"])
    if out is not None:
        title = f"{Path(str(source)).name}, {backbone}: {len(splits['train'])} training rows"
        plots.advice(
            [(str(one.choice), one.accuracy) for one in poolings],
            [(int(one.choice), one.accuracy, one.cost) for one in depths],
            title,
            Path(out),
        )
    return poolings, depths


def evaluate_run(run: Run, source: Source, columns: Mapping[str, str] | None = None, **reading: Any) -> Scores:
    """Score a trained run on rows with answers.

    Args:
        run: from `load_run`.
        source: rows, as `tfft.load_data` takes them.
        columns: the task's column -> the source's, where they differ from those of training.
        **reading: `encoding`, `bad_rows` as in `tfft.load_data`.

    Examples:
        scores = tfft.evaluate_run(tfft.load_run("runs/x"), "E.csv")
    """
    rows = data.load_rows(source, task=run.task, columns=_columns(run, columns), **reading)
    data.with_answers(rows, run.task)
    with arithmetic.arithmetic(run.config.get("precision", "float32")):  # as in training, so the scores are the same
        return evaluate(run.judged, rows, runs.run_examples(run, rows), run.task, run.facts)


def predict_texts(run: Run, texts: Sequence[str | Mapping[str, str]]) -> list[Answer]:
    """A trained run's answers for texts: for classification `{"label", "score", "probabilities"}` each.

    Args:
        run: from `load_run`.
        texts: strings; for a task of several texts mappings, such as `{"context": "...", "question": "..."}`.

    Raises:
        DataError: a row lacks one of the task's texts.

    Examples:
        tfft.predict_texts(tfft.load_run("runs/x"), ["Where is my parcel?"])
    """
    if not len(texts):
        return []
    rows = _asked(run.task, texts)
    examples = runs.run_examples(run, rows)
    return answers(run.task, predict(run.answering, examples), examples, rows, run.facts, run.tokenizer)


def _asked(task: Task, texts: Sequence[str | Mapping[str, str]]) -> pd.DataFrame:
    """What is asked, one column a text."""
    wanted = list(task.inputs)
    given = [{wanted[0]: text} if isinstance(text, str) and len(wanted) == 1 else text for text in texts]
    for number, row in enumerate(given, 1):
        if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) for name in wanted):
            raise DataError(f"row {number}: expected the texts {', '.join(wanted)}. Received: {str(row)[:80]!r}")
    return pd.DataFrame({name: [row[name] for row in given] for name in wanted}, dtype=object)  # type: ignore[index]


def read_texts(
    run: Run, source: Source, columns: Mapping[str, str] | None = None, **reading: Any
) -> list[dict[str, str]]:
    """The texts of a source, for `predict_texts`; arguments as in `evaluate_run`."""
    wanted = {name: run.task.columns[name] for name in run.task.inputs}
    chosen = {name: column for name, column in _columns(run, columns).items() if name in wanted}
    task = dataclasses.replace(run.task, columns=wanted, optional=())
    rows = data.load_rows(source, task=task, columns=chosen, **reading)
    return [dict(zip(wanted, row, strict=True)) for row in zip(*(rows[name] for name in wanted), strict=True)]


def validation_rows(run: Run, source: Source | None = None) -> pd.DataFrame:
    """The rows a run was validated on, from where they lay in training; or those of another source."""
    if source is not None:
        return data.load_rows(source, task=run.task, columns=_columns(run, None))
    try:
        splits = _load_data(from_mapping(run.config), run.task)
        if "validation" not in splits:
            raise NotFoundError("validation_share was 0")
        return splits["validation"]
    except NotFoundError as error:
        raise NotFoundError(f"the run has no validation rows any more ({error}); name some with --validation") from None


def draw(scores: Scores, path: Path) -> None:
    """The picture that belongs to the scores, where there is one."""
    if "confusion_matrix" in scores:
        plots.confusion_matrix(scores["confusion_matrix"], list(scores["per_class"]), path)


def write_samples(scores: Scores, path: Path) -> None:
    """The table of samples that belongs to the scores, where there is one; it is no longer among them then."""
    samples = scores.pop("samples", None)
    if samples:
        pd.DataFrame(samples).to_csv(path, index=False)


def _load_data(recipe: Recipe, task: Task) -> data.Splits:
    return data.load_data(
        recipe.data,
        recipe.validation,
        recipe.test,
        task=task,
        columns=columns_of(recipe.columns),
        encoding=recipe.encoding,
        bad_rows=recipe.bad_rows,
        validation_share=recipe.validation_share,
        test_share=recipe.test_share,
        seed=recipe.seed,
    )


def _encode(splits: data.Splits, task: Task, tokenizer: Any, facts: Facts, recipe: Recipe) -> dict[str, Examples]:
    weights = {"train": recipe.class_weight}  # the rows one is judged by are not weighted
    return {
        name: task.encode(rows, tokenizer, facts, cleaning=recipe.clean, class_weight=weights.get(name))
        for name, rows in splits.items()
    }


def _resolved(recipe: Recipe, task: Task, backbone: Any, folder: Path, train: Examples) -> Recipe:
    limit = getattr(backbone, "max_sequence_length", None)
    kept = WHOLE if task.answering else 0.99  # half a sentence cannot be translated
    longest = tokenizing.choose_length(lengths(train.x), limit, recipe.max_length, quantile=kept)
    most = WINDOW if task.windowed else task.defaults.get("max_length", longest)
    longest = min(longest, most) if recipe.max_length is None else longest
    if not task.pooled and recipe.pooling is not None:
        raise InvalidValueError(f"{task.name} reads every token and has no pooling. Leave --pooling out")
    if task.warm and recipe.pooling is None:  # the vector that was trained
        recipe = dataclasses.replace(recipe, pooling="trained")
    found = {"label_smoothing": 0.0, "average": 1} | dict(task.defaults) | {"max_length": longest}
    found |= {} if recipe.lora is None else {"learning_rate": lora.LEARNING_RATE}
    recipe = resolve(recipe, frozen=bool(task.warm) or not backbone.trainable_variables, **found)
    if not task.pooled:
        recipe = dataclasses.replace(recipe, pooling=None)
    if recipe.pooling == "trained":
        has_pooler = isinstance(backbone.output, dict) and "pooled_output" in backbone.output
        pooling = backbones.trained_pooling(folder) or ("pooled" if has_pooler else "mean")
        recipe = dataclasses.replace(recipe, pooling=pooling)
    pooling = f"pooling {recipe.pooling}, " if recipe.pooling else ""
    log.info("%sat most %d tokens a %s", pooling, recipe.max_length, "window" if task.windowed else "text")
    return recipe


def _cut(
    examples: dict[str, Examples], task: Task, tokenizer: Any, max_length: int, long_rows: str = "cut"
) -> tuple[dict[str, Examples], dict[str, int]]:
    cut, counts = {}, {}
    for name, rows in examples.items():
        cut[name], counts[name] = task.cut(rows, tokenizer, max_length)
        if counts[name] and long_rows == "stop":
            raise DataError(
                f"{name}: {counts[name]} of {count(rows)} rows are longer than {max_length} tokens (the longest has "
                f"{lengths(rows.x).max()}). Raise --max-length, shorten them, or cut them with --long-rows cut"
            )
        if counts[name]:
            what = f"were made {count(cut[name])} windows" if task.windowed else "were cut"
            log.info(
                "%s: %d of %d rows are longer than %d tokens and %s (the longest has %d)",
                *(name, counts[name], count(rows), max_length, what, lengths(rows.x).max()),
            )
    return cut, counts


def _scorer(task: Task, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Any:
    def score(outputs: Any) -> dict[str, float]:
        return {name: task.score(outputs, examples, rows, facts)[name] for name in task.headline}

    return score


def _fit_settings(recipe: Recipe, task: Task, tokenizer: Any, facts: Facts) -> dict[str, Any]:
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "warmup",
        "decay",
        "weight_decay",
        "clip_norm",
        "monitor",
        "patience",
        "average",
        "seed",
    )
    settings = {name: getattr(recipe, name) for name in names}
    settings["monitor"] = task.headline[0] if recipe.monitor == "score" else recipe.monitor
    settings |= {"redraw": task.redraw(tokenizer)} if task.redraw else {}
    return settings | {"loss": task.loss(facts, recipe.label_smoothing or 0.0), "metrics": task.metrics}


def _columns(run: Run, columns: Mapping[str, str] | None) -> dict[str, str]:
    """The columns asked for, else those of training."""
    return columns_of(run.config.get("columns", ())) | dict(columns or {})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
