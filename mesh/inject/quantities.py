"""Quantities of the Kubernetes API, as far as a sidecar's requests and limits are compared. Pure.

What is no quantity is the API server's to refuse: a pod's own are read by ``tuning``, and the schema of the
chart has judged the settings'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from mesh.inject.errors import RefusedError

_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_FACTORS: Final = {
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGT", 1)},
}


def amount(quantity: object) -> Fraction | None:
    """Give a quantity as a number; ``None`` for what is none."""
    found = _QUANTITY.fullmatch(str(quantity))
    return Fraction(found[1]) * _FACTORS.get(found[2], Fraction(1)) if found else None


def check(resources: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``RefusedError`` for a request above its limit, which the API server takes in no pod."""
    limits = resources.get("limits") or {}
    for resource, asked in (resources.get("requests") or {}).items():
        request, limit = amount(asked), amount(limits.get(resource))
        if request is not None and limit is not None and request > limit:
            raise RefusedError(
                f"the sidecar would ask for {resource} {asked}, above its limit of {limits[resource]}:"
                f" annotate both {resource}-request and {resource}-limit"
            )
