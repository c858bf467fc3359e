"""How the exported folder is used: code that runs, for the heads it has."""

from __future__ import annotations

import json

from bigner.card.facts import Facts

_ENTITIES = """\
from transformers import pipeline

tagger = pipeline("token-classification", model={model}, aggregation_strategy="first")
for entity in tagger("Anna Smith works in Oslo."):
    print(entity["entity_group"], entity["word"], round(float(entity["score"]), 3))
"""
_CLASSES = """\
from transformers import pipeline

tagger = pipeline("token-classification", model={model})
for piece in tagger("Anna Smith works in Oslo."):
    print(piece["entity"], piece["word"], round(float(piece["score"]), 3))
"""
# Logits of all heads lie side by side, so each has its own best.
_HEADS = """\
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForTokenClassification.from_pretrained({model})
words = "Anna Smith works in Oslo .".split()
pieces = tokenizer(words, is_split_into_words=True, return_tensors="pt")
logits = model(**pieces).logits[0]
word_ids = pieces.word_ids()
first_pieces = [word_ids.index(i) for i in range(len(words))]
start = 0
for name, head in model.config.bigner_heads.items():
    best = logits[:, start : start + len(head["labels"])].argmax(-1)
    print(name, [(word, head["labels"][best[i]]) for word, i in zip(words, first_pieces)])
    start += len(head["labels"])
"""


def code(facts: Facts, model: str) -> str:
    """Python that loads a model, by its folder or its name on the Hub."""
    kinds = [head.kind for head in facts.config.data.resolved_heads().values()]
    template = _HEADS if len(kinds) > 1 else _ENTITIES if kinds == ["tags"] else _CLASSES
    # A string of JSON is one of Python's.
    return template.format(model=json.dumps(model, ensure_ascii=False))


def note(facts: Facts) -> str:
    """What the code says of a word."""
    if facts.config.data.alignment == "first":
        return "A word has the label of its first sub-word, which alone was trained:"
    return "All sub-words of a word were trained, and its first says what it is:"


def long_texts(facts: Facts) -> str:
    """What to do with texts longer than a window; a head of tags alone is asked like this."""
    data = facts.config.data
    if not any(head.kind == "tags" for head in data.resolved_heads().values()):
        return ""
    return (
        f"This is for texts that the model can see at once. `bigner predict --model FOLDER` and "
        f"`bigner.Tagger.load(FOLDER)`, with the folder that this card lies in, cut longer ones as "
        f"training did, into windows of {data.max_length} sub-words that share {data.stride} "
        f"words: its `config.json` says so."
    )


def limits(facts: Facts) -> list[str]:
    """What is known of where the model ends; nothing is claimed of other text."""
    data = facts.config.data
    found = [
        f"It was trained and scored on windows of at most {data.max_length} sub-words, special "
        f"tokens included; longer texts were cut into several that share {data.stride} words. "
        f"`bigner evaluate` does the same, and the pipeline takes `stride` for it.",
    ]
    if data.context:
        found.append(
            f"Each sentence was read with up to {data.context} words of its document on each side."
        )
    if any(head.kind == "tags" for head in data.resolved_heads().values()):
        found.append("Its tags are IOB2, so entities are flat: none lies within another.")
    if facts.config.evaluation.decoding == "iob2":
        found.append(
            "The scores are those of the best sequence of tags in which no `I-` stands where it "
            "continues nothing (`evaluation.decoding: iob2`, `bigner predict --decoding iob2`); "
            "the code above takes the best tag of each word by itself."
        )
    found += [
        "It knows the labels above and no others, and has seen the data above and no other "
        "labelled text: how it does on other kinds of text was not measured.",
        "In the scores, a word that the tokenizer has nothing for counts as `O`, or as the "
        "commonest class.",
    ]
    return found
