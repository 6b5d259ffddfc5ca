"""The tasks tfft knows, by name; a task's module is loaded when it is asked for."""

import difflib
import importlib
from typing import TYPE_CHECKING

from tfft.errors import InvalidValueError

if TYPE_CHECKING:
    from tfft.tasks.task import Task

# name -> what it is for; `tfft tasks` prints this without loading TensorFlow
TASKS = {
    "text-classification": "one label for a text: sentiment, topic, spam, intent",
    "text-pair-classification": "one label for two texts: entailment, paraphrase, a fitting answer",
    "multi-label-classification": "any number of labels for a text: topics, kinds of abuse",
    "text-similarity": "how alike two texts are, a number: each is read for itself, so vectors can be kept",
    "text-regression": "a number for a text: a rating, a price, a grade",
    "token-classification": "words of a text tagged: names, places, products",
    "question-answering": "the words of a text that answer a question about it",
    "translation": "a text in another language, by a decoder that learns from pairs of texts",
    "summarization": "a short text for a long one: a headline, a subject line, an abstract",
    "text-generation": "text that goes on as yours does, or answers prompts, by a pretrained decoder",
    "few-shot": "one label for a text from 4 to 64 rows a label: the backbone learns from pairs of them first",
    "masked-lm": "read on in unlabelled text of your own before fine-tuning on labels: hidden words are guessed",
}


def get_task(name: str) -> "Task":
    """Return the task of that name, or of several targets: "topic=text-classification,stars=text-regression*0.5".

    Raises:
        InvalidValueError: no such task; the message names the nearest.

    Examples:
        >>> import tfft
        >>> tfft.get_task("text-classification").target
        'label'
    """
    if "=" in name:
        from tfft.tasks.several import Part, parse, several

        return several(name, [Part(target, get_task(task), weight) for target, task, weight in parse(name)])
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(f"no task {name!r}. Expected one of: {', '.join(TASKS)}.{hint}")
    task: Task = importlib.import_module(f"tfft.tasks.{name.replace('-', '_')}").TASK
    return task
