"""An evaluation from its questions to its figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from local_llm.evaluation import judge as judging
from local_llm.evaluation.answers import Answer, AnswerFile
from local_llm.evaluation.asking import Asking, Report, ask_all, refuse_all_failed
from local_llm.evaluation.costs import HourPrice
from local_llm.evaluation.fingerprint import fingerprint
from local_llm.evaluation.leakage import Seen
from local_llm.evaluation.question_set import Question, QuestionSet
from local_llm.evaluation.rules import Rules
from local_llm.evaluation.scoring import score
from local_llm.evaluation.summary import Difference, Judged, Summary, differences, summarize
from local_llm.evaluation.targets import Target
from local_llm.near_duplicates import grouped

Talk = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is evaluated. `seen`: questions that a model was trained on, asked all the same.

    `fresh`: what earlier evaluations were answered is asked again.
    """

    questions: QuestionSet
    rules: Rules
    targets: tuple[Target, ...]
    asking: Asking
    hour: HourPrice
    judge: Target | None = None
    seen: tuple[Seen, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class Evaluation:
    """`judged`: by targets' names, in the order of the questions."""

    plan: Plan
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    judged: Mapping[str, Sequence[Judged]]


def evaluate(plan: Plan, folder: Path, report: Report, talk: Talk) -> Evaluation:
    """Asks what is not answered yet and judges all of it. `folder` holds the answers of all evaluations.

    Raises: UnavailableError, AuthenticationError, NotFoundError: the same again goes on from there.
    """
    questions = plan.questions.questions
    leaders = grouped([question.text for question in questions])
    groups = dict(zip((question.id for question in questions), leaders, strict=True))
    judged, summaries = dict[str, list[Judged]](), list[Summary]()
    for target in plan.targets:
        answers, before = _answers(plan, target, questions, folder, report)
        _tell(talk, target, questions, answers, before)
        judgements = _judgements(plan, questions, answers, folder, report)
        judged[target.name] = [
            Judged(
                question,
                answer,
                score(
                    question,
                    answer,
                    plan.rules,
                    judgements.get(question.id),
                    judged=plan.judge is not None,
                ),
            )
            for question in questions
            if (answer := answers.get(question.asked_sha256)) is not None
        ]
        summary = summarize(
            target,
            judged[target.name],
            groups,
            hour=plan.hour,
            from_before=before,
            judge_asked=plan.judge is not None,
        )
        summaries.append(summary)
    return Evaluation(plan, tuple(summaries), tuple(differences(judged, groups)), judged)


def _answers(
    plan: Plan, target: Target, questions: Sequence[Question], folder: Path, report: Report
) -> tuple[Mapping[str, Answer], int]:
    """By the questions' hashes, and how many of them are from before."""
    if target.endpoint is None:
        return target.recorded, 0
    file = AnswerFile(folder / f"{fingerprint([target.identity, asdict(plan.asking)])}.jsonl")
    kept = {} if plan.fresh else file.read()
    known = {one.asked_sha256: kept[one.asked_sha256] for one in questions if one.asked_sha256 in kept}
    asked = [question for question in questions if question.asked_sha256 not in known]
    new = ask_all(target, asked, plan.asking, file, report)
    refuse_all_failed(target, new)
    return known | {one.question_sha256: one for one in new}, len(known)


def _judgements(
    plan: Plan, questions: Sequence[Question], answers: Mapping[str, Answer], folder: Path, report: Report
) -> dict[str, int]:
    """By the questions' ids: of the answers that the judge was asked about and understood."""
    if plan.judge is None:
        return {}
    asking = replace(plan.asking, max_tokens=judging.MAX_TOKENS)
    prompts = [
        judging.judging(question, answers[question.asked_sha256])
        for question in judging.judgeable(questions)
        if question.asked_sha256 in answers and not answers[question.asked_sha256].failed
    ]
    said, _ = _answers(replace(plan, asking=asking, fresh=False), plan.judge, prompts, folder, report)
    found = {one.id: judging.judgement(said[one.asked_sha256]) for one in prompts if one.asked_sha256 in said}
    return {identifier: value for identifier, value in found.items() if value is not None}


def _tell(
    talk: Talk, target: Target, questions: Sequence[Question], answers: Mapping[str, Answer], before: int
) -> None:
    failed = [one for one in answers.values() if one.failed]
    if before:
        talk(f"{target.name}: {before} of {len(questions)} answers were there (--fresh asks for all again)")
    if len(answers) < len(questions):
        talk(f"{target.name}: no answer to {len(questions) - len(answers)} of {len(questions)} questions")
    if failed:
        talk(f"{target.name}: {len(failed)} failed, the first: {failed[0].error}; the same command asks them again")
