"""One small tree of errors: what is wrong, where, what to do."""

from __future__ import annotations


class TersorError(Exception):
    """Everything that tersor raises on purpose; `str()` is "what (where): remedy"."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f": {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{advice}"

    def within(self, place: str) -> None:
        """Say where that is, unless it was said."""
        if place not in self.where:
            self.where = f"{place}, {self.where}" if self.where else place


class SourceError(TersorError):
    """A model cannot be read from where it is."""


class BudgetError(TersorError):
    """A size that cannot be reached, or that contradicts the other settings."""


class SettingError(TersorError):
    """A setting that does not exist, or a value that does not suit it."""


class OutputError(TersorError):
    """The result cannot be written where it was asked to go; nothing that stood there was touched."""


class MismatchError(TersorError):
    """Weights and the module or file they are meant for do not fit together."""


class FormatError(TersorError):
    """A file breaks the rules of spec/FORMAT.md; `code` names the rule (section 9 of the specification)."""

    def __init__(self, code: str, what: str, *, where: str = "", remedy: str = "") -> None:
        self.code = code
        super().__init__(what, where=where, remedy=remedy or "the file is damaged, get it again")


class UnsupportedError(FormatError):
    """A well-formed file that needs a newer reader, or a feature this installation lacks."""


class LimitError(FormatError):
    """A file that asks for more than the caller's `Limits` allow."""


class CalibrationError(TersorError):
    """Samples that a model cannot run on, or runs on without learning anything from them."""
