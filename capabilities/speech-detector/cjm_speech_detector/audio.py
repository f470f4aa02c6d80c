"""Reads the audio the model takes: WAV, 16 kHz, mono, 16-bit PCM.

What not: converting anything; that is another capability's work, and the message says which.
Must hold: whatever is wrong with a file is told with its path and what to do about it.
"""

import os
import wave

RATE_HZ = 16000
BYTES_PER_SAMPLE = 2
AUDIO_BYTES_MAX = 1024 * 1024 * 1024


class UnusableAudio(ValueError):
    """The file is not what the model takes."""


def read_pcm(path):
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
            if shape != (RATE_HZ, 1, BYTES_PER_SAMPLE):
                raise UnusableAudio(
                    f"{path} has {shape[0]} Hz, {shape[1]} channel(s), {8 * shape[2]} bits; "
                    f"{RATE_HZ} Hz, 1 channel, 16 bits are needed: convert it first (ffmpeg-convert, to_wav)"
                )
            return file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise UnusableAudio(f"{path} is no PCM WAV file ({reason}): convert it first (ffmpeg-convert, to_wav)") from error


def seconds(pcm):
    """How long that many bytes last."""
    return len(pcm) / (BYTES_PER_SAMPLE * RATE_HZ)
