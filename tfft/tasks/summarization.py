"""Summarization: a short text for a long one, such as a headline or a subject line. Scored by ROUGE."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfft import text_metrics
from tfft.tasks import text_to_text as shared
from tfft.tasks.task import Scores

SOURCE, TARGET = "document", "summary"


def judge(written: Sequence[str], rows: pd.DataFrame) -> Scores:
    """ROUGE, and beside it that of the documents' first words, as many as a summary has: what costs nothing."""
    found = shared.judge(text_metrics.summarization, SOURCE, TARGET, written, rows)
    words = max(1, round(float(np.mean([len(text.split()) for text in rows[TARGET]]))))
    lead = text_metrics.summarization(text_metrics.lead(rows[SOURCE].tolist(), words), rows[TARGET].tolist())
    return found | {f"lead_{name}": value for name, value in lead.items() if name in text_metrics.ROUGE}


TASK = shared.text_to_text(
    name="summarization",
    source=SOURCE,
    target=TARGET,
    columns={
        SOURCE: ("text", "article", "body", "content", "email"),
        TARGET: ("title", "headline", "subject", "highlights"),
    },
    options={"copy": True},
    defaults={**shared.DEFAULTS, "max_length": 128},
    headline=("rouge1", "rouge2", "rougeL"),
    judge=judge,
)
