"""The README, and the commands in it."""

import re
import shlex

from helpers.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def lines(language: str) -> list[str]:
    """Lines of the blocks in a language, continued ones joined, without prompts and comments."""
    text = "\n".join(block for name, block in BLOCKS if name == language).replace("\\\n", " ")
    return [line.removeprefix("$ ").strip() for line in text.splitlines() if line.strip()]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


USED = [line for line in (*lines("bash"), *lines("console")) if line.startswith("recsys ")]
