"""An executed notebook as a page: one language of its text, its code, what the code printed and drew."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import latex2mathml.converter

CHINESE = re.compile(r"[\u3400-\u9fff]")
BETWEEN = " · "  # stands between the English and the Chinese of one line
ANSWER = {"en": "Answers", "zh": "答案"}


def page(notebook: dict[str, Any], language: str, pictures: Path) -> str:
    """The notebook as Markdown.

    Args:
        notebook: as `json.load` reads it, executed.
        language: "en" or "zh".
        pictures: folder its pictures are written to; the page stands beside this folder.
    """
    parts, heading = [], ""
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = in_language(source, language)
            heading = next(iter(re.findall(r"^#+ (.+)$", source, flags=re.MULTILINE)), heading)
            parts.append(with_mathml(source))
        elif "answer" in cell["metadata"].get("tags", ()):
            folded = _indented(f"```python\n{source}\n```")
            parts.append(f'??? success "{ANSWER[language]}"\n{folded}')
        else:
            parts.append(f"```python\n{source}\n```")
            parts.extend(_outputs(cell["outputs"], heading, pictures, number))
    return "\n\n".join(parts) + "\n"


def in_language(text: str, language: str) -> str:
    """One language's blocks of a text in two: those with Chinese characters are Chinese, formulas and code are both."""
    return "\n\n".join(_chosen(blocks(text), language == "zh"))


def blocks(text: str) -> list[str]:
    """Paragraphs, lists, tables, code: what empty lines part; headings stand alone; code is kept whole."""
    found: list[str] = []
    for part in re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```"):
            found.append(part)
        else:
            apart = re.sub(r"^(#+ .+)$", r"\n\1\n", part, flags=re.MULTILINE)
            found.extend(block.strip("\n") for block in re.split(r"\n\s*\n", apart) if block.strip())
    return found


def is_both(block: str) -> bool:
    """Whether it is for readers of either language: a formula, code, a heading of code alone."""
    return block.startswith(("$$", "```")) or re.fullmatch(r"#+ (`[^`]+`[,. ]*)+", block) is not None


def _chosen(parts: list[str], chinese: bool) -> Iterator[str]:
    for block in parts:
        if is_both(block):
            yield block
        elif any(BETWEEN in line for line in block.splitlines()):  # a heading, or a list with both on each line
            yield "\n".join(_side(line, chinese) for line in block.splitlines())
        elif bool(CHINESE.search(block)) == chinese:
            yield block


def _side(line: str, chinese: bool) -> str:
    """`## Data · 数据` -> `## 数据`; a line in one language is left as it is."""
    sides = line.split(BETWEEN)
    turn = next((i for i, side in enumerate(sides[1:], 1) if CHINESE.search(side)), 0)  # English may quote Chinese
    if turn == 0:
        return line
    english, other = BETWEEN.join(sides[:turn]), BETWEEN.join(sides[turn:])
    mark = re.match(r"\s*(#+ |[-*] )?(\d+\. )?", english)  # a heading's number, too
    return f"{mark[0] if mark else ''}{other}" if chinese else english


def with_mathml(text: str) -> str:
    """Formulas as MathML, which browsers draw by themselves: no script from elsewhere. Code is left alone."""
    pieces = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"\$\$(.+?)\$\$", lambda m: _formula(m[1], "block"), pieces[i], flags=re.DOTALL)
        pieces[i] = re.sub(r"(?<![\\$\w])\$([^$\n]+?)\$(?!\d)", lambda m: _formula(m[1], "inline"), pieces[i])
    return "".join(pieces)


def _formula(latex: str, display: str) -> str:
    found = latex2mathml.converter.convert(latex.strip(), display=display).replace("\n", "")
    # Markdown takes <math> for a block of its own where a line begins with it
    return f'<span class="formula">{found}</span>' if display == "inline" else found


def _outputs(outputs: list[dict[str, Any]], heading: str, pictures: Path, number: int) -> Iterator[str]:
    """What the cell printed and drew; what libraries say on stderr is not the reader's concern."""
    for place, output in enumerate(outputs):
        data = output.get("data", {})
        if output["output_type"] == "stream" and output["name"] == "stdout":
            yield _printed("".join(output["text"]))
        elif "image/png" in data:
            pictures.mkdir(parents=True, exist_ok=True)
            file = pictures / f"{number:02d}-{place}.png"
            file.write_bytes(base64.b64decode("".join(data["image/png"])))
            yield f"![{heading}]({pictures.name}/{file.name}){{ .drawn }}"
        elif "text/html" in data:
            yield f'<div class="table" markdown="0">\n{_table("".join(data["text/html"]))}\n</div>'
        elif "text/plain" in data:
            yield _printed("".join(data["text/plain"]))


def _printed(text: str) -> str:
    """Text as it was printed, without a terminal's colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip("\n")
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall(r"`+", plain)), default=0))
    return f"{fence}{{ .text .printed }}\n{plain}\n{fence}"


def _table(html: str) -> str:
    """pandas's table without its own style; no empty line, at which Markdown would leave the block."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL).replace(' border="1"', "")
    return re.sub(r"\n\s*\n", "\n", html).strip()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
