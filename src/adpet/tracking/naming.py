"""Names as MLflow takes them: one that it would refuse is changed, and stays apart from every other.

MLflow's rules are those of `mlflow.utils.validation`: letters, digits, ``_ - . : /`` and spaces, at most 250
of them, and nothing that goes by a shorter name as a path, such as ``a//b``.
"""

import hashlib
import posixpath
import re

# Characters of the name of a parameter, metric or tag, and of the name and digest of a data set.
NAME_LIMIT = 250
DATASET_NAME_LIMIT = 500
DATASET_DIGEST_LIMIT = 36

_ALLOWED = re.compile(r"[\w.\- :/]+")
_REFUSED = re.compile(r"^[./]+|[^\w.\- :]")

# Hexadecimal digits at the end of what was changed.
_DIGITS = 8


def safe_name(name: str) -> str:
    """Return the name of a parameter, metric or tag, changed where MLflow would refuse it.

    >>> safe_name("train.learning_rate")
    'train.learning_rate'
    >>> safe_name("diagnosis_map.CN (control)")
    'diagnosis_map.CN _control_-3b1f8c5e'
    """
    is_own_path = posixpath.normpath(name) == name != "." and not name.startswith(("..", "/"))
    if _ALLOWED.fullmatch(name) and is_own_path:
        return shortened(name, NAME_LIMIT)
    return _marked(_REFUSED.sub("_", name), name, NAME_LIMIT)


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters; one that was longer ends in digits of its SHA-256."""
    return text if len(text) <= limit else _marked(text, text, limit)


def _marked(text: str, original: str, limit: int) -> str:
    digits = hashlib.sha256(original.encode()).hexdigest()[:_DIGITS]
    return f"{text[: limit - _DIGITS - 1]}-{digits}"
