"""From one probability per chunk to stretches of speech. Pure arithmetic: no model, no files.

Must hold: segments are in order, do not overlap, lie within the recording, and each names the highest probability
that was heard in it.
"""

from dataclasses import dataclass

CHUNK_SAMPLES = 512
CHUNK_SECONDS = CHUNK_SAMPLES / 16000


@dataclass(frozen=True)
class Rules:
    """When speech begins and ends. Probabilities are 0 to 1, times are milliseconds."""

    probability_on: float = 0.5
    probability_off: float = 0.35
    silence_min_ms: int = 400
    speech_min_ms: int = 200
    pad_ms: int = 100


def find(probabilities, total_seconds, rules):
    """Segments as `{"start", "end", "probability"}`, in seconds."""
    kept = [run for run in _joined(_runs(probabilities, rules), rules) if _lasts(run, rules)]
    pad = rules.pad_ms / 1000
    found = []
    for place, (start, end, peak) in enumerate(kept):
        # Padding takes at most half of the silence between neighbours, so that they cannot overlap.
        left_bound = (kept[place - 1][1] + start) / 2 if place else 0.0
        right_bound = (end + kept[place + 1][0]) / 2 if place + 1 < len(kept) else total_seconds
        found.append(
            {
                "start": round(max(start - pad, left_bound, 0.0), 3),
                "end": round(min(end + pad, right_bound, total_seconds), 3),
                "probability": round(peak, 4),
            }
        )
    return found


def _runs(probabilities, rules):
    """Stretches that rise to the upper threshold and have not yet fallen below the lower one."""
    start = None
    peak = 0.0
    count = 0
    for place, probability in enumerate(probabilities):
        count = place + 1
        if start is None:
            if probability >= rules.probability_on:
                start, peak = place, probability
        elif probability < rules.probability_off:
            yield start * CHUNK_SECONDS, place * CHUNK_SECONDS, peak
            start = None
        else:
            peak = max(peak, probability)
    if start is not None:
        yield start * CHUNK_SECONDS, count * CHUNK_SECONDS, peak


def _joined(runs, rules):
    """Neighbours with less silence between them than a pause are one."""
    joined = []
    for start, end, peak in runs:
        if joined and start - joined[-1][1] < rules.silence_min_ms / 1000:
            before = joined.pop()
            start, peak = before[0], max(before[2], peak)
        joined.append((start, end, peak))
    return joined


def _lasts(run, rules):
    return run[1] - run[0] >= rules.speech_min_ms / 1000
