"""Commands of the documentation that say that they are run on the testbed."""

from __future__ import annotations

import re

from deploy.quickstart.trial import ROOT

_FENCE = re.compile(r"<!-- run on the testbed -->\n```bash\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a how-to, in its order."""
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text()
    lines = [
        line
        for block in _FENCE.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
    assert lines, page
    return lines
