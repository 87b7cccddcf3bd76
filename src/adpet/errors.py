"""The few errors that a user can mend; the text of each is the one line that they see."""


class AdpetError(Exception):
    """What was required, what was received, in which file, and what to do next."""


class ParameterError(AdpetError):
    """A key of ``params.yaml`` is unknown, has the wrong type or contradicts another."""


class InputError(AdpetError):
    """A scan, table or folder cannot be used."""


class LeakageError(AdpetError):
    """A subject stands on two sides of a split."""


class TrackingError(AdpetError):
    """The tracking server or the model registry cannot do what was asked."""
