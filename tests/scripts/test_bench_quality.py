"""The benchmark of strategies and retrievers: what it asks, how it counts, and that nothing is done twice."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local_llm.prompts import REFUSAL, context_prompt
from local_llm.relevance import Measures

from ..conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

from quality_bench.lines import Journal, read_rows, write_rows
from quality_bench.retriever import data as retriever_data
from quality_bench.retriever import report as retriever_report
from quality_bench.retriever import scoring as retriever_scoring
from quality_bench.strategies import asking, data, files, prompts, report
from quality_bench.strategies.adapters import rows_within
from quality_bench.strategies.asking import Answer, Request
from quality_bench.strategies.bench import requests
from quality_bench.strategies.contexts import Contexts, Passage, contexts
from quality_bench.strategies.data import Question
from quality_bench.strategies.scoring import contrast, contrasts, score_all, scored, summary
from quality_bench.strategies.settings import SETTINGS, settings_with

RIVER = Question("q1", "Which river is it?", "the Rhine", "Rivers-1", 0, "Rivers")
CITY = Question("q2", "Which city is it?", "Ulm", "Cities-1", 0, "Cities")


def passage(document: str, text: str) -> Passage:
    return Passage(f"{document}.md", document, "", text)


def answer(question: Question, text: str, *cited: str, seconds: float = 1.0) -> Answer:
    return Answer(question.id, text, seconds, 10, 5, cited)


# How answers are counted


def test_an_answer_counts_by_its_words_and_not_by_its_markers() -> None:
    found = scored(RIVER, answer(RIVER, "Rhine [2]", "Rivers-1.md"))
    assert found.values == {"exact_match": 1.0, "f1": 1.0, "containment": 1.0}
    assert (found.refused, found.cites) == (False, True)
    longer = scored(RIVER, answer(RIVER, "It is the Rhine.", "Rivers-2.md"))
    # "it is rhine" against "rhine": precision 1/3, recall 1
    assert longer.values == {"exact_match": 0.0, "f1": pytest.approx(0.5), "containment": 1.0}
    assert (longer.cites, longer.cites_any) == (False, True)
    assert scored(RIVER, answer(RIVER, f"{REFUSAL} [1]")).refused


def test_a_summary_tells_means_refusals_and_the_median_time() -> None:
    found = score_all([RIVER, CITY], [answer(CITY, REFUSAL, seconds=3.0), answer(RIVER, "Rhine", seconds=1.0)])
    told = summary(found)
    assert told.answers == 2
    assert told.measures["exact_match"].mean == 0.5
    assert (told.refused.mean, told.median_seconds) == (0.5, 2.0)


def test_a_contrast_pairs_the_questions_that_both_settings_answered() -> None:
    one = score_all([RIVER, CITY], [answer(RIVER, "Rhine"), answer(CITY, "Bonn")])
    other = score_all([RIVER, CITY], [answer(RIVER, "Main")])
    assert contrast(one, other)["exact_match"].mean == 1.0
    both = contrasts({"hybrid": one, "rag": other}, [("hybrid", "rag"), ("hybrid", "plain_rag")])
    assert list(both) == ["hybrid - rag"]


def test_a_difference_within_one_article_alone_is_not_certain() -> None:
    """Ten questions of one article all gain, ten of another do not: by questions sure, by articles not."""
    rivers = [Question(f"r{n}", "?", "Rhine", "Rivers-1", 0, "Rivers") for n in range(10)]
    cities = [Question(f"c{n}", "?", "Ulm", "Cities-1", 0, "Cities") for n in range(10)]
    asked = [*rivers, *cities]
    good = score_all(asked, [answer(one, one.answer) for one in asked])
    worse = score_all(asked, [answer(one, "?" if one in rivers else one.answer) for one in asked])
    found = contrast(good, worse)["f1"]
    assert found.mean == 0.5
    assert not found.is_certain


# What is asked


def test_contexts_are_what_was_found_with_and_without_the_gold_document() -> None:
    found = [
        passage("Rivers-2", "The Main."),
        passage("Rivers-1", "It flows on."),
        passage("Rivers-3", "The Rhine, again."),
        passage("Rivers-1", "It is the Rhine."),
        passage("Rivers-4", "The Elbe."),
        passage("Rivers-5", "The Oder."),
    ]
    made = contexts(RIVER, found)
    assert made.served == tuple(found[:3])
    assert made.gold == (found[0], found[3], found[4])
    assert made.absent == (found[0], found[4], found[5])
    assert not made.answerable  # the gold document is there, but not the passage that says it
    assert contexts(RIVER, found[2:]).answerable
    assert contexts(RIVER, found[:3]).gold == ()


def test_each_setting_asks_in_the_product_s_own_prompt() -> None:
    rhine, elbe = passage("Rivers-1", "It is the Rhine."), passage("Rivers-4", "The Elbe.")
    known = {
        "q1": Contexts((rhine,), (rhine, elbe), (elbe,), answerable=True),
        "q2": Contexts((elbe,), (), (), answerable=False),
    }
    names: Any = {"plain": "ft:p", "raft": "ft:r"}
    by_name = {one.name: one for one in settings_with(frozenset(names))}
    words = {one.profile.name: None for one in SETTINGS}
    served, gold, absent = (
        requests(by_name[name], [RIVER, CITY], known, names, words)
        for name in ("hybrid", "raft_gold", "hybrid_absent")
    )
    assert [(one.question, one.model) for one in served] == [("q1", "quality-hybrid"), ("q2", "quality-hybrid")]
    assert served[0].messages == ({"role": "user", "content": RIVER.text},)
    for asked, passages in ((gold, (rhine, elbe)), (absent, (elbe,))):
        (one,) = asked  # the other question has no such context
        assert one.model == "ft:r"
        assert one.messages[-1]["content"] == context_prompt(RIVER.text, passages)
    again = requests(by_name["hybrid"], [RIVER], known, {**names, "raft": "ft:new"}, words)
    assert again[0].key != served[0].key


def test_settings_without_their_adapter_are_left_out() -> None:
    assert [one.name for one in settings_with(frozenset())] == ["base", "rag", "rag_zero_shot", "rag_absent"]
    assert "refusal" not in {one.name for one in settings_with(frozenset({"plain", "raft"}))}


# What is trained


def test_so_many_rows_as_the_minutes_allow() -> None:
    assert rows_within(60, seconds_of_all=600, rows=800) == 80
    assert rows_within(6000, seconds_of_all=600, rows=800) == 800
    assert rows_within(1, seconds_of_all=6000, rows=800) == 1


def test_the_plain_file_has_the_questions_of_the_other(tmp_path: Path) -> None:
    asked = f"{context_prompt(RIVER.text, [passage('Rivers-1', 'Question: of another kind')])}"
    write_rows(tmp_path / "raft.jsonl", [{"messages": [{"role": "user", "content": asked}]}])
    assert files.trained_on(tmp_path / "raft.jsonl", [CITY, RIVER, RIVER]) == [RIVER]
    (row,) = prompts.plain_rows([RIVER])
    assert [one["content"] for one in row["messages"]] == [prompts.SHORT, RIVER.text, RIVER.answer]


@pytest.fixture
def xquad(tmp_path: Path) -> Path:
    documents = [
        {"id": f"{title}-1", "title": title, "text": f"A first sentence. {title} are called {title[0]}o by some."}
        for title in ("Rivers", "Cities", "Trees")
    ]
    asked = {
        part: [
            {
                "id": f"{title}?", "question": f"What are {title} called?", "answer": f"{title[0]}o",
                "answer_start": len(f"A first sentence. {title} are called "), "document_id": f"{title}-1",
            }
            for title in titles
        ]
        for part, titles in (("train", ("Rivers", "Cities")), ("test", ("Trees",)))
    }  # fmt: skip
    write_rows(tmp_path / "documents.jsonl", documents)
    for part, rows in asked.items():
        write_rows(tmp_path / f"questions.{part}.jsonl", rows)
    return tmp_path


def test_nothing_that_is_asked_about_is_trained_with(xquad: Path) -> None:
    world = data.read(xquad)
    assert {row["title"] for row in world.train_documents} == {"Rivers", "Cities"}
    shown = prompts.few_shot(world)
    assert "Text: Rivers are called Ro by some.\nQuestion: What are Rivers called?\nAnswer: Ro" in shown
    assert "Trees" not in shown
    (xquad / "questions.test.jsonl").write_text((xquad / "questions.train.jsonl").read_text())
    with pytest.raises(ValueError, match="Cities, Rivers"):
        data.read(xquad)


# Nothing is done twice


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat server that says the question again, citing it, and what it was asked."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append(body)
            message = {
                "role": "assistant",
                "content": body["messages"][-1]["content"],
                "citations": [{"document": "Rivers-1.md"}],
            }
            reply = {
                "id": "chat", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }  # fmt: skip
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}/v1", seen
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_only_questions_without_a_kept_answer_are_asked(
    server: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, seen = server
    asked = [Request(f"q{n}", "m", ({"role": "user", "content": f"text {n}"},), "") for n in range(3)]
    journal = tmp_path / "answers" / "rag.jsonl"
    asking.ask(url, "rag", asked[:2], Journal(journal))
    first = asking.found(asked, Journal(journal))
    assert [(one.question, one.text, one.cited) for one in first] == [
        ("q0", "text 0", ("Rivers-1.md",)),
        ("q1", "text 1", ("Rivers-1.md",)),
    ]
    assert {(body["temperature"], body["max_tokens"]) for body in seen} == {(0, 48)}
    seen.clear()
    with journal.open("a") as handle:
        handle.write('{"key": "cut of')  # a kill in the middle of a line
    assert asking.missing(asked, Journal(journal)) == asked[2:]
    asking.ask(url, "rag", asked, Journal(journal))
    again = asking.found(asked, Journal(journal))
    assert again[:2] == first
    assert [body["messages"][0]["content"] for body in seen] == ["text 2"]
    assert len(again) == len(asked)


def test_rows_are_found_again_whatever_their_texts_hold_and_wherever_a_kill_cut_them(tmp_path: Path) -> None:
    path, text = tmp_path / "answers.jsonl", "a line\u2028ends\u0085here, é"
    Journal(path).add("one", {"text": text})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-4])  # in the middle of the last letter
    again = Journal(path)
    assert again.get("one") == {"key": "one", "text": text}
    assert path.read_bytes() == whole
    write_rows(path, [{"text": text}])
    assert read_rows(path) == [{"text": text}]


def test_a_file_that_would_be_the_same_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"a": "é"}])
    path.chmod(0o400)
    before = path.stat().st_mtime_ns
    write_rows(path, [{"a": "é"}])
    assert path.stat().st_mtime_ns == before


# The report


def test_the_report_tells_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "rag": score_all([RIVER, CITY], [answer(RIVER, "Rhine"), answer(CITY, "Bonn")]),
        "rag_absent": score_all([RIVER, CITY], [answer(RIVER, REFUSAL), answer(CITY, "Bonn")]),
        "hybrid": score_all([RIVER, CITY], [answer(RIVER, "Rhine", "Rivers-1.md"), answer(CITY, "Ulm")]),
    }
    known = {
        "q1": contexts(RIVER, [passage("Rivers-1", "The Rhine.")]),
        "q2": contexts(CITY, [passage("Rivers-1", "The Rhine.")]),
    }
    retrieval = report.retrieval_facts([RIVER, CITY], known)
    assert retrieval == {"recall_3": 0.5, "answer_recall_3": 0.5, "gold_found": 0.5, "absent_found": 0.5}
    facts = json.loads(json.dumps(report.facts_of(found, {}, known)))
    assert facts["contrasts"]["hybrid - rag"]["exact_match"]["mean"] == 0.5
    assert facts["settings"]["hybrid"]["cites_gold"] == 0.5
    # Of the two only the river's passages hold the answer; the city is refused nowhere.
    shares = facts["refusals"]["rag"]
    assert (shares["false"]["mean"], shares["right"]["mean"]) == (0.0, 0.5)
    report.print_report(found, {}, known)
    printed = capsys.readouterr().out
    assert "rag_absent" not in printed  # its refusals stand beside those of rag
    assert "0.500 [0.000, 1.000]" in printed


# The retriever


def test_every_document_is_scored_for_every_question() -> None:
    questions = (
        retriever_data.Question("one", frozenset({"a"}), "g"),
        retriever_data.Question("two", frozenset({"b"}), "g"),
    )
    test = retriever_data.TestSet("t", ("a", "b"), ("", ""), questions)
    documents = np.array([[1, 0], [0, 1]], np.float32)
    asked = np.array([[1, 0], [0.8, 0.6]], np.float32)  # the second finds the wrong one first
    found = retriever_scoring.ranking_measures(test, documents, asked)
    second = 1 / np.log2(3)
    assert [one.accuracy_1 for one in found] == [1.0, 0.0]
    assert found[1] == Measures(pytest.approx(second), 1.0, 0.5, 0.0)


def test_models_are_compared_over_whole_groups(capsys: pytest.CaptureFixture[str]) -> None:
    questions = tuple(retriever_data.Question(f"{n}", frozenset("a"), "one") for n in range(4))
    test = retriever_data.TestSet("medquad", ("a",), ("",), questions)
    bad, good = Measures(0.0, 0.0, 0.0, 0.0), Measures(1.0, 1.0, 1.0, 1.0)
    facts = retriever_report.facts_of(test, {"untuned": [bad] * 4, "default": [good, good, good, bad]})
    assert facts["means"]["default"]["ndcg_10"] == 0.75
    change = facts["changes"]["default - untuned"]["ndcg_10"]
    assert (change["mean"], change["low"], change["high"]) == (0.75, 0.75, 0.75)  # one group: nothing to draw
    retriever_report.print_tables({"medquad": facts}, {"default": {"seconds": 61.0}})
    assert "+0.7500 [+0.7500, +0.7500]" in capsys.readouterr().out


def test_the_article_of_a_question_is_its_group(xquad: Path) -> None:
    test = retriever_data.xquad(xquad)
    assert [one.group for one in test.questions] == ["Rivers", "Cities", "Trees"]
    assert test.texts[0].startswith("Rivers. A first sentence.")
    small = retriever_data.xquad(xquad, limit=1)
    assert (small.ids, len(small.questions)) == (("Rivers-1", "Cities-1"), 1)
