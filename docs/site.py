"""Hook of MkDocs: files of the repository outside of ``docs`` are named on the site, not linked."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Turn ``[text](../path)`` into ``text``."""
    return re.sub(r'\[([^\]]*)\]\(\.\./[^)]*\)', r'\1', markdown)
