"""Interleaved pairs: two measurements in turn, so that a slow moment of the machine hits both."""

from __future__ import annotations

import gc
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

Measure = Callable[[], float]


@dataclass
class Line:
    """One line of the report.

    Attributes:
        case: What was measured.
        unit: Unit of `ours` and `bare`.
        ours: Median of our side.
        bare: Median of what it is compared with.
        judged: What the target is about: `ratio at least`, `ratio at most`, `ours at most`.
        target: The number to reach, None for none.
        ratios: Ours divided by bare, one for each pair.
        more: Further numbers.
    """

    case: str
    unit: str
    ours: float
    bare: float
    judged: str
    target: float | None
    ratios: list[float]
    more: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Median of the paired ratios."""
        return median(self.ratios)

    @property
    def met(self) -> bool:
        """Whether the target is reached; a case without one is."""
        if self.target is None:
            return True
        value = self.ours if self.judged.startswith("ours") else self.ratio
        return value >= self.target if self.judged.endswith("least") else value <= self.target

    def to_json(self) -> str:
        """The line as it is printed."""
        shown = {
            "case": self.case,
            "unit": self.unit,
            "ours": _short(self.ours),
            "bare": _short(self.bare),
            "ratio": _short(self.ratio),
            "ratio_min": _short(min(self.ratios)),
            "ratio_max": _short(max(self.ratios)),
            "judged": self.judged if self.target is not None else None,
            "target": self.target,
            "met": self.met if self.target is not None else None,
            "pairs": len(self.ratios),
            "python": platform.python_version(),
            **{name: _short(number) for name, number in self.more.items()},
        }
        return json.dumps(shown)


def interleaved(ours: Measure, bare: Measure, pairs: int) -> tuple[list[float], list[float]]:
    """Measure both in turn, each first as often as the other, after one round that is thrown away."""
    ours_numbers: list[float] = []
    bare_numbers: list[float] = []
    for number in range(pairs + 1):
        order = ((ours, ours_numbers), (bare, bare_numbers))
        for measure, numbers in order if number % 2 else reversed(order):
            gc.collect()
            numbers.append(measure())
    return ours_numbers[1:], bare_numbers[1:]


def compared(
    case: str, unit: str, ours: Measure, bare: Measure, *, pairs: int, judged: str, target: float | None
) -> Line:
    """Measure a case and judge it."""
    ours_numbers, bare_numbers = interleaved(ours, bare, pairs)
    ratios = [mine / limit for mine, limit in zip(ours_numbers, bare_numbers, strict=True)]
    return Line(case, unit, median(ours_numbers), median(bare_numbers), judged, target, ratios)


def _short(number: float) -> float:
    return round(number) if abs(number) >= 1000 else float(f"{number:.4g}")
