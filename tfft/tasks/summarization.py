"""Summarization: a short text for a long one, such as a headline or a subject line. Scored by ROUGE."""

import numpy as np
import pandas as pd

from tfft import text_metrics
from tfft.examples import Examples
from tfft.tasks import text_to_text as shared
from tfft.tasks.task import Facts, Scores

SOURCE, TARGET = "document", "summary"


def score(outputs: np.ndarray, examples: Examples, rows: pd.DataFrame, facts: Facts) -> Scores:
    """ROUGE, and beside it that of the documents' first words, as many as a summary has: what costs nothing."""
    found = shared.score(text_metrics.summarization, SOURCE, TARGET, outputs, examples, rows, facts)
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
    score=score,
)
