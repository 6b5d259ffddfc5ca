"""What griffe is told of the docstrings: an example without prompts is code, too."""

import re
from typing import Any

import griffe

# the section's title, then lines that are indented as its first is; not those with prompts, which griffe knows
EXAMPLE = re.compile(r"(?m)^( *)Examples:\n((?:\1    (?!>>> ).*\n?|\s*\n)+)")


class Fenced(griffe.Extension):
    """Puts fences around them."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every function, class and module that was read."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(match: re.Match[str]) -> str:
    """The section with its lines as a block of Python."""
    indent = f"{match[1]}    "
    return f"{match[1]}Examples:\n{indent}```python\n{match[2].rstrip()}\n{indent}```\n"
