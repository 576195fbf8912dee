"""What is said to the models beside the product's own words, and what the plain adapter is trained on."""

from collections.abc import Sequence

from quality_bench.lines import Row
from quality_bench.strategies.data import Question, Xquad
from serving.answering.sources import sentence_spans

# To base and fine-tuned alike: without it, XQuAD's short answers would measure who is brief.
SHORT = "Answer with a few words only, not with a sentence."
EXAMPLES = 3
LONGEST_SENTENCE, LONGEST_ANSWER = 120, 25  # characters: examples are read anew with every question


def plain_rows(questions: Sequence[Question]) -> list[Row]:
    """A training file of questions and answers, in the words in which the profile asks."""
    return [
        {
            "messages": [
                {"role": "system", "content": SHORT},
                {"role": "user", "content": one.text},
                {"role": "assistant", "content": one.answer},
            ]
        }
        for one in questions
    ]


def few_shot(data: Xquad) -> str:
    """Words for the profile `rag`, with examples of how to answer: the first short ones of the train articles."""
    examples: dict[str, str] = {}
    for one in data.train:
        sentence = gold_sentence(data.documents[one.document]["text"], one)
        if len(sentence) <= LONGEST_SENTENCE and len(one.answer) <= LONGEST_ANSWER:
            examples.setdefault(one.article, f"Text: {sentence}\nQuestion: {one.text}\nAnswer: {one.answer}")
    shown = list(examples.values())[:EXAMPLES]
    return "\n\n".join([f"{SHORT} Examples:", *shown, ""])


def gold_sentence(text: str, question: Question) -> str:
    """All that the answer touches of its document's sentences."""
    end = question.start + len(question.answer)
    touching = [span for span in sentence_spans(text) if span[0] < end and span[1] > question.start]
    return " ".join(text[touching[0][0] : touching[-1][1]].split())
