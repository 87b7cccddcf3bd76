"""Errors that a user can mend, one line each."""


class AdpetError(Exception):
    """What is wrong, where, and what to do next."""


class ParameterError(AdpetError):
    """A key of ``params.yaml`` is unknown, mistyped or contradictory."""


class InputError(AdpetError):
    """A scan, table or folder cannot be used."""


class LeakageError(AdpetError):
    """A subject is on two sides of a split."""


class TrackingError(AdpetError):
    """The tracking server or model registry cannot do it."""
