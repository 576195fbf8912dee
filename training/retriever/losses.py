"""The three losses, and the columns that each takes."""

from collections.abc import Sequence
from typing import Any

from local_llm.questions import Question
from training.retriever.data import Passage
from training.retriever.mining import Pair
from training.retriever.settings import Loss

QUESTION = "question"
# Passages that the cached loss has in memory at once.
CACHED_AT_ONCE = 16


def make_loss(name: Loss, model: Any, temperature: float) -> Any:
    """Multiple negatives: each question's passage against all others of the batch, softmax of cosine / temperature
    (Henderson et al. 2017, van den Oord et al. 2018). Cached: the same in the memory of few (GradCache, Gao et al.
    2021). Cosine: the squared distance of the cosine from the label, as the article has it.
    """
    from sentence_transformers.sentence_transformer import losses

    if name == "cosine":
        return losses.CosineSimilarityLoss(model)
    if name == "cached":
        return losses.CachedMultipleNegativesRankingLoss(
            model, scale=1 / temperature, mini_batch_size=CACHED_AT_ONCE
        )
    return losses.MultipleNegativesRankingLoss(model, scale=1 / temperature)


def columns(
    loss: Loss, pairs: Sequence[Pair], questions: Sequence[Question], passages: Sequence[Passage]
) -> dict[str, list[Any]]:
    """Columns of the training set, in the order in which the loss takes them; a row for each pair."""
    table: dict[str, list[Any]] = {
        QUESTION: [questions[one.question].text for one in pairs],
        "passage": [passages[one.positive].text for one in pairs],
    }
    if loss == "cosine":
        return {**table, "label": [one.label for one in pairs]}
    for at in range(min((len(one.negatives) for one in pairs), default=0)):
        table[f"negative_{at + 1}"] = [passages[one.negatives[at]].text for one in pairs]
    return table


def prompts(names: Sequence[str], query: str, document: str) -> dict[str, str]:
    """What is put before the texts of each column: as when the index encodes them."""
    given = {name: query if name == QUESTION else document for name in names if name != "label"}
    return {name: prompt for name, prompt in given.items() if prompt}
