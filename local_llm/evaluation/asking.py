"""The questions put to a server, so many at once, each answer timed and kept.

Answers are streamed: the time to the first token is that of the first piece of text as it arrives here, the total
that of the whole stream, both by this process's monotonic clock. Before them one question goes out that is not
counted: an adapter, an encoder or a connection that has to be made ready is so by then. Nothing is asked twice by
itself: an answer that failed is told as failed, and asked again when the evaluation is made again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from local_llm.errors import AuthenticationError, NotFoundError, UnavailableError
from local_llm.evaluation.answers import Answer, AnswerFile
from local_llm.evaluation.question_set import Question
from local_llm.evaluation.targets import Endpoint, Target

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Report = Callable[[int, int, str], None]
"""Progress: report(done, total, note)."""


WARM_UP = Question(id="warm-up", messages=({"role": "user", "content": "Hello."},))


@dataclass(frozen=True)
class Asking:
    """How is asked; part of what an answer hangs on. `timeout_seconds`: of one answer."""

    concurrency: int
    max_tokens: int
    timeout_seconds: float = 600.0
    temperature: float = 0.0


def ask_all(
    target: Target, questions: Sequence[Question], asking: Asking, file: AnswerFile, report: Report
) -> list[Answer]:
    """Asks all, in no order, and keeps what is answered; returns those that are new.

    Raises: UnavailableError if nobody answers at all, AuthenticationError, NotFoundError: what is answered by then
    is kept.
    """
    return asyncio.run(_ask_all(target, questions, asking, file, report)) if questions else []


def ask_once(target: Target, question: Question, asking: Asking) -> Answer:
    """One question, its answer kept nowhere. Raises: as ask_all."""

    async def once() -> Answer:
        assert target.endpoint is not None
        async with open_client(target.endpoint, asking) as client:
            return await ask(client, target, question, asking)

    return asyncio.run(once())


async def _ask_all(
    target: Target, questions: Sequence[Question], asking: Asking, file: AnswerFile, report: Report
) -> list[Answer]:
    answers, waiting = list[Answer](), iter(questions)
    writing = asyncio.Lock()

    async def work(client: "AsyncOpenAI", mine: Iterator[Question]) -> None:
        for question in mine:
            answer = await ask(client, target, question, asking)
            if not answer.failed:
                async with writing:
                    await asyncio.to_thread(file.add, answer)
            answers.append(answer)
            report(len(answers), len(questions), target.name)

    assert target.endpoint is not None
    async with open_client(target.endpoint, asking) as client:
        await ask(client, target, WARM_UP, replace(asking, max_tokens=1))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(asking.concurrency, len(questions))):
                    group.create_task(work(client, waiting))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
    return answers


@asynccontextmanager
async def open_client(endpoint: Endpoint, asking: Asking) -> AsyncIterator["AsyncOpenAI"]:
    """No proxy of the environment, and no retries, which would pass for slow answers."""
    import openai

    http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=endpoint.trust)
    async with openai.AsyncOpenAI(
        base_url=endpoint.url,
        api_key=endpoint.key,
        http_client=http,
        max_retries=0,
        timeout=asking.timeout_seconds,
    ) as client:
        yield client


async def ask(client: "AsyncOpenAI", target: Target, question: Question, asking: Asking) -> Answer:
    """An answer of this one may be a failure; a server or a key that is not there is an error of all."""
    import httpx
    import openai

    heard = _Heard(question.asked_sha256)
    try:
        stream: Any = await client.chat.completions.create(
            model=target.model or "",
            messages=cast(Any, question.messages),
            max_tokens=asking.max_tokens,
            temperature=asking.temperature,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            async for chunk in stream:
                heard.take(chunk)
    except openai.APITimeoutError:
        return heard.failed(f"no answer in {asking.timeout_seconds:g} s")
    except openai.APIConnectionError:
        assert target.endpoint is not None
        raise UnavailableError(
            f"no server answers at {target.endpoint.url}; what was answered is kept",
            hint="local-llm serve, and the same command again",
        ) from None
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise AuthenticationError(
            f"{target.name}: {error.message}",
            hint="OPENAI_API_KEY for this box, --key-env for others",
        ) from None
    except openai.NotFoundError as error:
        raise NotFoundError(f"{target.name}: {error.message}", param="model") from None
    except (openai.APIError, httpx.HTTPError) as error:
        return heard.failed(str(error) or type(error).__name__)
    return heard.answer()


@dataclass
class _Heard:
    """What came of an answer so far."""

    question_sha256: str
    asked_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    first: float | None = None
    parts: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    def take(self, chunk: Any) -> None:
        usage, choice = chunk.usage, chunk.choices[0] if chunk.choices else None
        if chunk.model:
            self.told["model"] = chunk.model
        if usage is not None:
            details = usage.prompt_tokens_details
            self.told["input_tokens"] = usage.prompt_tokens
            self.told["output_tokens"] = usage.completion_tokens
            self.told["cached_tokens"] = details.cached_tokens if details else None
        if choice is None:
            return
        if choice.delta.content:
            self.first = time.perf_counter() if self.first is None else self.first
            self.parts.append(choice.delta.content)
        if choice.finish_reason:
            self.told["finish_reason"] = choice.finish_reason
        extra = choice.delta.model_extra or {}
        if extra.get("citations") is not None:
            self.told["citations"] = tuple(extra["citations"])
        if extra.get("context") is not None:
            self.told["refused"] = bool(extra["context"].get("refused"))

    def answer(self) -> Answer:
        if "finish_reason" not in self.told:
            return self.failed("the answer broke off")
        return Answer(
            question_sha256=self.question_sha256,
            text="".join(self.parts),
            ttft_seconds=None if self.first is None else self.first - self.began,
            total_seconds=time.perf_counter() - self.began,
            asked_at=self.asked_at,
            **self.told,
        )

    def failed(self, error: str) -> Answer:
        total = time.perf_counter() - self.began
        return Answer(self.question_sha256, total_seconds=total, asked_at=self.asked_at, error=error[:500])


def refuse_all_failed(target: Target, answers: Sequence[Answer]) -> None:
    """An evaluation of which nothing was answered tells of the server and not of the model.

    Raises: UnavailableError with the first error.
    """
    if answers and all(one.failed for one in answers):
        raise UnavailableError(
            f"{target.name} answered none of {len(answers)} questions: {answers[0].error}",
            hint="local-llm doctor; then the same command again",
        )


def refuse_unreachable(endpoint: Endpoint, hint: str) -> None:
    """Raises: UnavailableError unless somebody answers there, whatever it says."""
    import httpx

    try:
        httpx.get(f"{endpoint.url}/models", timeout=10, trust_env=False, verify=endpoint.trust)
    except httpx.HTTPError as error:
        reason = type(error).__name__
        raise UnavailableError(f"no server answers at {endpoint.url} ({reason})", hint=hint) from None
