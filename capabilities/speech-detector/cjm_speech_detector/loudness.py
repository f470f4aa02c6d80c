"""How loud a recording is, computed with numpy: what tells a quiet voice from a quiet recording.

What not: deciding anything; the segments come from the model alone. Must hold: silence and nothing at all have figures
too, and every figure is a plain number that JSON can carry.
"""

import numpy

from . import audio

FULL_SCALE = 32768.0
# Quieter than one step of 16 bits; stands for silence, whose true figure is minus infinity.
FLOOR_DBFS = -120.0
# 32 ms, as the model listens.
FRAME_SAMPLES = 512
# Of the frames, this share is quieter than the noise floor.
QUIET_SHARE = 0.1


def measure(pcm):
    """Loudness of 16-bit samples, in decibels below full scale, and the share of samples at full scale."""
    samples = numpy.frombuffer(pcm[: len(pcm) - len(pcm) % audio.BYTES_PER_SAMPLE], dtype="<i2")
    if samples.size == 0:
        return {"rms_dbfs": FLOOR_DBFS, "peak_dbfs": FLOOR_DBFS, "noise_floor_dbfs": FLOOR_DBFS, "clipped_share": 0.0}
    magnitudes = numpy.abs(samples.astype(numpy.float64)) / FULL_SCALE
    frames = numpy.array_split(magnitudes, max(1, samples.size // FRAME_SAMPLES))
    levels = numpy.array([numpy.sqrt(numpy.mean(numpy.square(frame))) for frame in frames])
    return {
        "rms_dbfs": _decibels(numpy.sqrt(numpy.mean(numpy.square(magnitudes)))),
        "peak_dbfs": _decibels(magnitudes.max()),
        "noise_floor_dbfs": _decibels(numpy.quantile(levels, QUIET_SHARE)),
        "clipped_share": round(float(numpy.count_nonzero(magnitudes >= 32767 / FULL_SCALE) / samples.size), 6),
    }


def _decibels(level):
    return FLOOR_DBFS if level <= 0 else round(max(float(20 * numpy.log10(level)), FLOOR_DBFS), 2)
