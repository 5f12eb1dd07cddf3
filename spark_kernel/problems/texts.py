"""A text field of a problem record, checked."""

from __future__ import annotations


def checked_text(value: object, role: str) -> str:
    """The value if it is a text with something in it that can be written as UTF-8.

    Raises:
        ValueError: it is not; says which role and why.
    """
    if not isinstance(value, str):
        raise ValueError(f"the {role} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"the {role} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {role} holds half of a surrogate pair, which is no character") from None
    return value
