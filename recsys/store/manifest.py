"""What a generation says of itself: its meta.json, read and checked."""

import json
from pathlib import Path
from typing import Any

from recsys.errors import ArtefactError
from recsys.store.checksums import check_facts

NEEDED_FACTS = ("generation", "last_live_number")


def read_facts(generation: Path) -> dict[str, Any]:
    """Read a generation's meta.json.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((generation / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"cannot read {generation}/meta.json: {error}; build again") from error
    lacking = [name for name in NEEDED_FACTS if name not in facts] if isinstance(facts, dict) else list(NEEDED_FACTS)
    if lacking:
        raise ArtefactError(f"{generation}/meta.json does not say {', '.join(lacking)}; roll back or build again")
    check_facts(facts, generation / "meta.json")
    return facts
