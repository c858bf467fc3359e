"""The sentences of the error browser as data in a page.

What page.js reads: names once, and everything else as numbers of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bigner.report.matching import KINDS, Span, SpanError
from bigner.report.sentences import CHANGES, WrongSentence

# What would end a script element or begin a comment in it, and what JavaScript once took for the
# end of a line.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def script_json(values: Any) -> str:
    """JSON that may stand in a script element, whatever is in it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # None of them is a part of JSON outside of strings.
    return text.translate(_ESCAPES)


def browser_data(
    sentences: Sequence[WrongSentence], types: Sequence[str], file: str
) -> dict[str, Any]:
    """The data of the error browser.

    Args:
        sentences: those that a run has wrong.
        types: all that are in gold or a prediction.
        file: name of the file of predictions.
    """
    numbers = {name: i for i, name in enumerate(types)}
    return {
        "file": file,
        "types": list(types),
        "kinds": list(KINDS),
        "changes": list(CHANGES),
        "sentences": [_sentence(sentence, numbers) for sentence in sentences],
    }


def _sentence(sentence: WrongSentence, numbers: Mapping[str, int]) -> dict[str, Any]:
    def spans(found: Sequence[Span]) -> list[list[int]]:
        return [[span.first, span.last, numbers[span.type]] for span in found]

    runs = zip(sentence.predicted, sentence.errors, sentence.sure, strict=True)
    return {
        "line": sentence.line,
        "words": sentence.words,
        "gold": spans(sentence.gold),
        "runs": [
            {
                "spans": spans(predicted),
                "errors": [
                    [*_error(error, sentence.gold, predicted), confidence]
                    for error, confidence in zip(errors, sure, strict=True)
                ],
            }
            for predicted, errors, sure in runs
        ],
        "change": -1 if sentence.change is None else list(CHANGES).index(sentence.change),
    }


def _error(error: SpanError, gold: Sequence[Span], predicted: Sequence[Span]) -> list[int]:
    """Number of the kind and of both entities among those of their side, -1 for none."""
    return [
        KINDS.index(error.kind),
        -1 if error.gold is None else gold.index(error.gold),
        -1 if error.predicted is None else predicted.index(error.predicted),
    ]
