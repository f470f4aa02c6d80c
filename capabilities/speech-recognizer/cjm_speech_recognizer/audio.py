"""Reads the audio the model takes: WAV, mono, 16-bit PCM, at the rate the recognizer is configured for.

What not: converting anything; that is another capability's work, and the message says which.
Must hold: whatever is wrong with a file is told with its path and what to do about it.
"""

import os
import wave

BYTES_PER_SAMPLE = 2
AUDIO_BYTES_MAX = 1024 * 1024 * 1024


class UnusableAudio(ValueError):
    """The file is not what the model takes."""


def read_pcm(path, rate_hz):
    """All samples of the file at `path`, as bytes."""
    if not os.path.isfile(path):
        hint = "" if os.path.isabs(path) else ": give an absolute path"
        raise UnusableAudio(f"there is no file {os.path.abspath(path)}{hint}")
    size = os.stat(path).st_size
    if size > AUDIO_BYTES_MAX:
        raise UnusableAudio(f"{path} is {size} bytes long, more than the {AUDIO_BYTES_MAX} allowed: cut it first")
    try:
        with wave.open(path, "rb") as file:
            shape = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            if shape != (rate_hz, 1, BYTES_PER_SAMPLE):
                raise UnusableAudio(
                    f"{path} has {shape[0]} Hz, {shape[1]} channel(s), {8 * shape[2]} bits; "
                    f"{rate_hz} Hz, 1 channel, 16 bits are needed: convert it first (ffmpeg-convert, to_wav)"
                )
            return file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise UnusableAudio(f"{path} is no PCM WAV file ({reason}): convert it first (ffmpeg-convert, to_wav)") from error


def seconds(pcm, rate_hz):
    """How long that many bytes last."""
    return len(pcm) / (BYTES_PER_SAMPLE * rate_hz)


def cut(pcm, rate_hz, start, end):
    """The samples between two times in seconds."""
    first = max(0, round(start * rate_hz)) * BYTES_PER_SAMPLE
    return pcm[first : max(0, round(end * rate_hz)) * BYTES_PER_SAMPLE]
