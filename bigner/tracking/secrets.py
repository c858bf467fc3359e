"""Keys and passwords, which no message may hold."""

from __future__ import annotations

import os
import re

_SECRET_NAMES = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
# Shorter ones are no secrets, and would be found in any text.
_SHORTEST = 6


def hide_secrets(text: str) -> str:
    """A text without the values that the environment holds under names of secrets."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAMES.search(name.upper()):
            text = text.replace(value, "***")
    return text
