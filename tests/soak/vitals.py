"""Memory and open files of processes over time, and whether they grow without end."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: part of a process's samples, from the first on, that is its warm-up
WARM_UP = 0.25
#: fewest seconds of samples after the warm-up from which a slope by the hour means something
LONG = 900.0
#: and from which a leap does: before that users still connect again after a restart
BRIEF = 60.0
#: what one process may grow by in a short run, however short: caches fill. MiB, and open files
SHORT_MEMORY, SHORT_FILES = 40.0, 30.0
#: and by the hour in a long one
HOUR_MEMORY, HOUR_FILES = 30.0, 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One look at one process."""

    #: seconds, of any clock that does not jump
    when: float
    #: resident memory in MiB
    memory: float
    #: open file descriptors
    files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What became of a process after its warm-up."""

    #: seconds from the first sample to the last
    seconds: float
    #: MiB and files, from the beginning to the end of the fitted line
    memory: float
    files: float

    @property
    def memory_hour(self) -> float:
        """MiB by the hour."""
        return self.memory / self.seconds * 3600 if self.seconds else 0.0

    @property
    def files_hour(self) -> float:
        """Open files by the hour."""
        return self.files / self.seconds * 3600 if self.seconds else 0.0

    def too_much(self) -> str:
        """What grows without end, in words; "" = nothing. A short run can only tell of leaps."""
        if self.seconds >= LONG:
            if self.memory_hour > HOUR_MEMORY:
                return f"memory grows by {self.memory_hour:.0f} MiB an hour"
            if self.files_hour > HOUR_FILES:
                return f"open files grow by {self.files_hour:.0f} an hour"
        if self.seconds < BRIEF:
            return ""
        if self.memory > SHORT_MEMORY:
            return f"memory grew by {self.memory:.0f} MiB in {self.seconds:.0f} s"
        if self.files > SHORT_FILES:
            return f"open files grew by {self.files:.0f} in {self.seconds:.0f} s"
        return ""


@dataclass(kw_only=True)
class Vitals:
    """Samples of several processes, each under a name; one name may see many processes."""

    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)

    def look(self, name: str, pid: int, when: float) -> None:
        """Sample a process; one that is gone leaves no sample."""
        sample = sample_of(pid, when)
        if sample is not None:
            self.samples.setdefault((name, pid), []).append(sample)

    def growth(self, name: str) -> Growth | None:
        """That of the process that was seen longest; None = none was seen twice."""
        found = [taken for (who, _), taken in self.samples.items() if who == name]
        longest = max(found, key=lambda taken: taken[-1].when - taken[0].when, default=[])
        return growth(longest)


def sample_of(pid: int, when: float) -> Sample | None:
    """Look at a process; None = it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, IndexError):
        return None
    return Sample(when=when, memory=pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files=files)


def growth(samples: Sequence[Sample]) -> Growth | None:
    """The growth after the warm-up, by a line through all samples: single leaps count little."""
    kept = samples[int(len(samples) * WARM_UP) :]
    if len(kept) < 3 or kept[-1].when <= kept[0].when:
        return None
    times = [sample.when for sample in kept]
    seconds = times[-1] - times[0]
    lines = [
        statistics.linear_regression(times, values).slope * seconds
        for values in ([s.memory for s in kept], [float(s.files) for s in kept])
    ]
    return Growth(seconds=seconds, memory=lines[0], files=lines[1])


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that ``part`` (0 to 1) of the values don't exceed; 0.0 without any."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * part * 1000) // 1000) - 1))]
