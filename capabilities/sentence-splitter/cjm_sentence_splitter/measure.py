"""Figures about sentences and words, computed with numpy. Pure: no files, no sentences found.

Must hold: an empty page has figures too, and every figure is a plain number that JSON can carry.
"""

import numpy

SHARES = (0.1, 0.5, 0.9)


def sentences(texts):
    """How long the sentences are, in words."""
    lengths = numpy.fromiter((len(text.split()) for text in texts), dtype=numpy.int64, count=len(texts))
    if lengths.size == 0:
        return {"sentences": 0, "words": 0}
    low, middle, high = numpy.quantile(lengths, SHARES)
    return {
        "sentences": int(lengths.size),
        "words": int(lengths.sum()),
        "words_mean": round(float(lengths.mean()), 2),
        "words_deviation": round(float(lengths.std()), 2),
        "words_p10": round(float(low), 2),
        "words_median": round(float(middle), 2),
        "words_p90": round(float(high), 2),
        "longest": int(lengths.argmax()) + 1,
    }


def certainty(confidences):
    """How sure the reader was: the mean over all words, the least sure word, and the share of doubtful ones."""
    values = numpy.asarray(confidences, dtype=numpy.float64)
    if values.size == 0:
        return {"words_read": 0}
    return {
        "words_read": int(values.size),
        "confidence_mean": round(float(values.mean()), 2),
        "confidence_min": round(float(values.min()), 2),
        "doubtful_share": round(float(numpy.count_nonzero(values < 60.0) / values.size), 4),
    }
