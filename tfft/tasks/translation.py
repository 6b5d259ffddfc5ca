"""Translation: a text in another language. Scored by sacreBLEU."""

import functools

from tfft import text_metrics
from tfft.tasks import text_to_text as shared

TASK = shared.text_to_text(
    name="translation",
    source="source",
    target="target",
    columns={"source": ("src", "source_text", "text", "en"), "target": ("tgt", "target_text", "translation")},
    options={},
    headline=("bleu", "chrf", "ter"),
    judge=functools.partial(shared.judge, text_metrics.translation, "source", "target"),
)
