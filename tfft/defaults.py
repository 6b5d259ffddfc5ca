"""Settings that differ for a frozen and a thawed backbone. `docs/training.md` shows this table with its reasons."""

from typing import Any

# Every part of the backbone frozen: a linear model on fixed features. Convex, cheap, wants a large step.
FROZEN: dict[str, Any] = {
    "pooling": "blocks",
    "dropout": 0.5,
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "monitor": "loss",
    "patience": 10,  # an epoch costs a second, and while the rate is high the loss is too noisy to stop by
}

# Some of the backbone learns: small steps, few passes, or the pretrained weights are forgotten.
THAWED: dict[str, Any] = {
    "pooling": "trained",
    "dropout": 0.1,
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 1e-4,  # for MiniLM's size; 2e-5 to 5e-5 suits a backbone of 100 M parameters
    "warmup": 0.1,
    "monitor": "score",
    "patience": 2,
}


def defaults(frozen: bool) -> dict[str, Any]:
    """The table for a backbone that is frozen as a whole, or for one that is not."""
    return dict(FROZEN if frozen else THAWED)


SERVING = ("2.13", "2.20")  # oldest TensorFlow Serving an export may be asked to load in; the first by default
