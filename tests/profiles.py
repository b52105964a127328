"""How much Hypothesis tries: ``HYPOTHESIS_PROFILE`` names it.

``newest`` is what a test has unless it asks for more: as many examples as Hypothesis tries by itself.
``floor`` tries fewer: there the question is whether the oldest dependencies do the same, and not whether the
code is right. Neither has a deadline, for a busy machine is slow for reasons of its own.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("newest", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("floor", settings.get_profile("newest"), max_examples=25)


def load() -> None:
    """Load the profile that the environment asks for."""
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "newest"))
