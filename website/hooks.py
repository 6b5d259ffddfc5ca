"""What MkDocs is told while it builds: a page's link to the same page in the other language."""

from pathlib import Path
from typing import Any


def on_page_context(context: dict[str, Any], page: Any, config: Any, nav: Any) -> None:
    """Lead the language switch to this page, or to the front page where the other language lacks it."""
    here = Path(config["docs_dir"])
    other = "zh" if here.name == "en" else "en"
    address = page.url if (here.parent / other / page.file.src_path).exists() else ""
    to_other = f"zh/{address}" if other == "zh" else f"../{address}"
    links = {here.name: page.url or "./", other: to_other}
    config["extra"]["alternate"] = [
        {"name": name, "lang": language, "link": links[language]}
        for language, name in (("en", "English"), ("zh", "中文"))
    ]
