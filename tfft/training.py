"""Optimizer, compile and Keras's own `fit`, with the freeze held as a contract."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfft import activations, caching, freezing, fusing, lora
from tfft.batching import INFERENCE_ROWS, INFERENCE_TOKENS, Arrange, Redraw, batches
from tfft.caching import Cache
from tfft.defaults import defaults
from tfft.errors import FreezeError, InvalidValueError
from tfft.evaluation import predict
from tfft.examples import Examples, as_arrays, take
from tfft.optimizers import FusedAdam
from tfft.progress import Advance, work
from tfft.seeding import is_seed, seed_layers

# A step of a head on stored vectors takes less time than Keras's own loop around it.
STEPS_TOGETHER = 64
LOWER = ("loss", "perplexity")  # of what is watched, the lower is better
DECAYS = ("cosine", "inverse-sqrt", "constant")

log = logging.getLogger(__name__)


def fit(
    model: keras.Model,
    train: Examples,
    validation: Examples | None = None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    warmup: float | None = None,
    decay: str = "cosine",
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    monitor: str | None = None,
    patience: int | None = None,
    average: int = 1,
    loss: Any = "categorical_crossentropy",
    metrics: Sequence[Any] = ("accuracy",),
    score: Callable[[Any], Mapping[str, float]] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    arrange: Arrange | None = None,
    redraw: Redraw | None = None,
    seed: int = 0,
    cache: Cache | None = None,
) -> keras.callbacks.History:
    """Train what is trainable; frozen layers run in inference mode and provably do not move.

    Compiles after the flags were set, says in the log what learns, and calls Keras's `fit` on the trainable suffix.
    What frozen layers put out is computed once and kept in the cache, at whatever depth the flags say, where that
    saves time. Where all that is frozen ends in one vector per row, that is done even without a cache, in memory, and
    batches are drawn at random; else rows of like length are batched together. The weights live in `model`. Settings
    that are None come from `tfft.defaults` for a frozen or a thawed backbone.

    Args:
        model: flat functional model whose `trainable` flags are set.
        train: rows from a task's `encode`.
        validation: rows for early stopping; None trains all epochs.
        epochs: passes over the rows, at most.
        batch_size: rows a step.
        learning_rate: peak of the schedule.
        warmup: share of all steps over which the rate rises from 0.
        decay: "cosine" to 0, "inverse-sqrt" of the steps, or "constant".
        weight_decay: above 0, AdamW in place of Adam; biases and norms are spared.
        clip_norm: largest global norm of the gradient; None for no clipping.
        monitor: "loss" or the name of a metric or score; what is watched on the validation rows.
        patience: epochs without a better value before it stops; the weights of the best epoch are kept.
        average: so many last epochs' weights are averaged at the end, and kept where the validation rows judge them
            better (Vaswani et al. 2017, arXiv 1706.03762, did so without the judging); 1 for none.
        loss: as `keras.Model.compile` takes it.
        metrics: likewise, or classes of metrics; weighted as the loss is.
        score: outputs for the validation rows, as `tfft.predict` gives them -> numbers by name, after every epoch: for
            what is no mean over batches, such as the F1 of answers.
        callbacks: further Keras callbacks.
        arrange: as `tfft.batches` takes it, for the training rows.
        redraw: as `tfft.batches` takes it, for the training rows. Nothing is stored then: no epoch is like another.
        seed: of the shuffle and of dropout.
        cache: where outputs of the frozen layers are kept for the epochs and for later runs.

    Returns:
        Keras's History.

    Raises:
        FreezeError: nothing is trainable, a frozen variable moved, or no trainable one did.
    """
    if not model.trainable_variables:
        raise FreezeError("nothing learns: every layer is frozen. Add a head, or freeze less")
    table = defaults(frozen=_only_head_learns(model))
    epochs = table["epochs"] if epochs is None else epochs
    batch_size = table["batch_size"] if batch_size is None else batch_size
    seed_layers(model, seed)
    log.info(freezing.learning(model))

    prefix, suffix = activations.split(model)
    if redraw is None:
        learner, train, validation = _above_frozen(prefix, suffix, train, validation, cache, epochs)
    else:
        learner = activations.join(prefix, fusing.narrowed(suffix))
    names = [tensor.name for tensor in learner.inputs]
    data = batches(train, names, batch_size, seed=seed, arrange=arrange, redraw=redraw)
    judged = validation and batches(validation, names, INFERENCE_ROWS, max_tokens=INFERENCE_TOKENS)

    steps = len(data) * epochs
    rate = schedule(
        table["learning_rate"] if learning_rate is None else learning_rate,
        steps,
        table["warmup"] if warmup is None else warmup,
        decay,
    )
    # XLA would compile again for every batch shape, and on a CPU it is slower (docs/architecture.md)
    together = min(len(data), STEPS_TOGETHER) if prefix is not None and activations.is_pooled(prefix) else 1
    learner.compile(
        optimizer(rate, weight_decay, clip_norm),
        loss,
        weighted_metrics=[metric() if isinstance(metric, type) else metric for metric in metrics],
        jit_compile=False,
        steps_per_execution=together,
    )
    _build_state(learner, train)
    # Where the rate rises from 0 and an epoch is one step, the first moves nothing, and is no epoch to go back to.
    idle = int(len(data) == 1 and float(rate(0)) == 0)
    watched = monitor or table["monitor"]
    watched = (str(metrics[0]) if metrics else "loss") if watched == "score" else watched
    stopping = [] if judged is None else [_early_stopping(watched, patience or table["patience"], idle)]
    if validation is not None and score is not None:
        stopping.insert(0, _Scores(learner, validation, score))
    before, last = _fingerprints(model), _LastEpochs(average)
    with work("training", steps) as advance:
        history = learner.fit(
            data,
            validation_data=judged,
            epochs=epochs,
            callbacks=[last, *stopping[:-1], *_progress(advance), *stopping[-1:], *callbacks],
            shuffle=False,  # the dataset shuffles itself
            verbose=0,
        )
    if average > 1:
        _average(learner, last, _judge(learner, judged, validation, score, watched) if judged else None)
    freezing.check_kept(before, _fingerprints(model))
    return history


def _build_state(learner: keras.Model, train: Examples) -> None:
    """Make the variables of optimizer and metrics now: made within the step, they have TensorFlow trace it twice."""
    learner.optimizer.build(learner.trainable_variables)
    y, weight = (take(as_arrays(value), np.zeros(1, int), 1) for value in (train.y, train.weight))
    if isinstance(learner.output, keras.KerasTensor):
        length = y.shape[1] if y.ndim > 1 else 1
        outputs = np.zeros((1, *(length if size is None else size for size in learner.output.shape[1:])), "float32")
        learner.compute_metrics(None, y, outputs, weight)
        learner.reset_metrics()


def schedule(
    learning_rate: float, steps: int, warmup: float, decay: str
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up over a share of the steps, then decay by a cosine to 0, by the steps' inverse root, or none."""
    if decay not in DECAYS:
        raise InvalidValueError(f"decay must be one of: {', '.join(DECAYS)}. Received: {decay!r}")
    first = int(warmup * steps)
    if decay == "inverse-sqrt":
        return InverseRoot(learning_rate, max(first, 1))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if first else learning_rate,
        decay_steps=max(steps - first, 1),
        alpha=1.0 if decay == "constant" else 0.0,
        warmup_target=learning_rate if first else None,
        warmup_steps=first,
    )


class InverseRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then the peak divided by the root of steps over warm-up steps (arXiv 1706.03762, section 5.3).

    Args:
        peak: of the rate, at the end of the warm-up.
        warmup: steps.
    """

    def __init__(self, peak: float, warmup: int) -> None:
        self.peak, self.warmup = peak, warmup

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        share = keras.ops.cast(step + 1, "float32") / self.warmup
        return self.peak * keras.ops.minimum(share, keras.ops.rsqrt(share))

    def get_config(self) -> dict[str, Any]:
        """For Keras."""
        return {"peak": self.peak, "warmup": self.warmup}


def optimizer(rate: Any, weight_decay: float, clip_norm: float | None) -> keras.optimizers.Optimizer:
    """Adam; with weight decay AdamW, which spares biases and norms."""
    adam = FusedAdam(rate, clip_norm, weight_decay or None)
    if weight_decay:
        adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


def _only_head_learns(model: keras.Model) -> bool:
    return all(freezing.is_head(layer) for layer in model.layers if layer.trainable_variables)


def _above_frozen(
    prefix: keras.Model | None,
    suffix: keras.Model,
    train: Examples,
    validation: Examples | None,
    cache: Cache | None,
    epochs: int,
) -> tuple[keras.Model, Examples, Examples | None]:
    """What is trained, and its rows: the part above the stored outputs, or all of it where none are stored."""
    learner = fusing.narrowed(suffix)
    if prefix is None:
        return learner, train, validation
    stored = _stored(prefix, suffix, train, cache, epochs, "training rows")
    if stored is not None and validation is None:
        return learner, stored, None
    if stored is not None and validation is not None:  # what pays for the many rows is done for the few
        always = cache and dataclasses.replace(cache, mode="always" if cache.mode == "auto" else cache.mode)
        held_out = _stored(prefix, suffix, validation, always, epochs + 1, "validation rows")
        if held_out is not None:
            return learner, stored, held_out
    return activations.join(prefix, learner), train, validation


def _stored(
    prefix: keras.Model, suffix: keras.Model, rows: Examples, cache: Cache | None, passes: int, description: str
) -> Examples | None:
    if cache is not None:
        stored = caching.frozen_outputs(prefix, suffix, rows, cache, passes=passes, description=description)
        if stored is not None:
            return stored
    if not activations.is_pooled(prefix):
        return None
    return rows._replace(x=predict(prefix, rows, description=f"frozen part, {description}"), padding={})


def _fingerprints(model: keras.Model) -> tuple[dict[str, str], dict[str, str]]:
    # By layer, not by variable: the running means of a BatchNorm that learns move too, and are no trainable variables.
    frozen = [v for layer in model.layers if not layer.trainable for v in layer.variables]
    frozen = [v for v in [*frozen, *lora.beneath(model)] if not is_seed(v)]
    return freezing.fingerprints(frozen), freezing.fingerprints(model.trainable_variables)


def _progress(advance: Advance) -> list[keras.callbacks.Callback]:
    def log_epoch(epoch: int, logs: dict[str, float]) -> None:
        log.info("epoch %d: %s", epoch + 1, ", ".join(f"{name} {value:.4f}" for name, value in logs.items()))

    done = -1

    def step(batch: int, logs: dict[str, float]) -> None:  # several steps may have been taken since the last call
        nonlocal done
        advance(batch - done if batch > done else batch + 1)
        done = batch

    shown = keras.callbacks.LambdaCallback(on_train_batch_end=step, on_epoch_end=log_epoch)
    return [shown, keras.callbacks.TerminateOnNaN(raise_error=True)]


class _Scores(keras.callbacks.Callback):
    """Adds the task's scores of the validation rows to what Keras knows of an epoch."""

    def __init__(self, learner: keras.Model, rows: Examples, score: Callable[[Any], Mapping[str, float]]) -> None:
        super().__init__()
        self.learner, self.rows, self.score = learner, rows, score

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keras passes the same dictionary on to the callbacks that follow."""
        outputs = predict(self.learner, self.rows, description="validation rows")
        (logs if logs is not None else {}).update({f"val_{name}": v for name, v in self.score(outputs).items()})


class _LastEpochs(keras.callbacks.Callback):
    """Keeps the weights that the last epochs ended with."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights: collections.deque[list[np.ndarray]] = collections.deque(maxlen=count if count > 1 else 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Copies what learns."""
        if self.weights.maxlen:
            self.weights.append(_values(self.model))


def _values(learner: keras.Model) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in learner.trainable_variables]


def _judge(
    learner: keras.Model,
    judged: Any,
    validation: Examples | None,
    score: Callable[[Any], Mapping[str, float]] | None,
    watched: str,
) -> Callable[[], float]:
    """What gives the watched number of the validation rows for the weights as they are."""

    def judge() -> float:
        found = learner.evaluate(judged, verbose=0, return_dict=True)
        if watched not in found and score is not None and validation is not None:
            found |= score(predict(learner, validation, description="validation rows"))
        log.info("validation rows: %s %.4f", watched, found[watched])
        return float(found[watched]) * (1 if watched in LOWER else -1)

    return judge


def _average(learner: keras.Model, last: _LastEpochs, judge: Callable[[], float] | None) -> None:
    """Set the mean of the last epochs' weights; where there is a judge, only if that is no worse than what is set."""
    kept, before = _values(learner), None if judge is None else judge()
    _assign(learner, [np.mean(each, axis=0) for each in zip(*last.weights, strict=True)])
    log.info("the mean of the last %d epochs' weights is tried", len(last.weights))
    if judge is not None and before is not None and judge() > before:
        log.info("it is worse, and is not kept")
        _assign(learner, kept)


def _assign(learner: keras.Model, values: list[np.ndarray]) -> None:
    for variable, value in zip(learner.trainable_variables, values, strict=True):
        variable.assign(value)


def _early_stopping(monitor: str, patience: int, idle: int = 0) -> keras.callbacks.Callback:
    mode = "min" if monitor in LOWER else "max"
    return keras.callbacks.EarlyStopping(
        f"val_{monitor}", mode=mode, patience=patience, restore_best_weights=True, start_from_epoch=idle
    )


def as_columns(history: keras.callbacks.History) -> dict[str, np.ndarray]:
    """The history as columns, one row an epoch."""
    return {"epoch": np.arange(1, len(history.epoch) + 1)} | {name: np.array(v) for name, v in history.history.items()}
