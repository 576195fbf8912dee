"""Evaluations that were made: a folder each, written whole or not at all, and never changed."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from local_llm.errors import NotFoundError
from local_llm.evaluation.report_html import html
from local_llm.evaluation.report_markdown import markdown
from local_llm.fileio import read_json, staged_directory, write_file, write_json

REPORT, ANSWERS = "report.json", "answers.jsonl"
MARKDOWN, HTML = "report.md", "report.html"
RUNS, KEPT = "runs", "answers"
COMMAND = "local-llm evaluate QUESTIONS --profiles base,fine_tuned,rag,hybrid"

log = logging.getLogger("local_llm.evaluation")


class History:
    """`folder` holds all evaluations of a home."""

    def __init__(self, folder: Path):
        self._folder = folder

    def answers(self, project: str) -> Path:
        """Where a project's answers are kept between evaluations."""
        return self._folder / KEPT / project

    def write(self, report: dict[str, Any], answers: Iterable[dict[str, Any]]) -> Path:
        """Returns the folder of the run, with the report in three forms and every answer."""
        rows = list(answers)
        earlier = self.of_questions(report["questions"]["sha256"], report["project"])
        target = self._folder / RUNS / report["run"]
        with staged_directory(target) as staging:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_file(staging / ANSWERS, lines.encode("utf-8", "replace"))
            write_file(staging / MARKDOWN, markdown(report, earlier).encode("utf-8", "replace"))
            write_file(staging / HTML, html(report, earlier, rows).encode("utf-8", "replace"))
            write_json(staging / REPORT, report)
        return target

    def reports(self, project: str) -> list[dict[str, Any]]:
        """Of a project, the oldest first. A folder that cannot be read is passed over."""
        found = []
        for path in sorted((self._folder / RUNS).glob(f"*/{REPORT}")):
            try:
                report = read_json(path)
                if report["project"] == project:
                    found.append((report["created_at"], report["run"], report))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s is passed over: %s", path, error)
        return [report for _, _, report in sorted(found, key=lambda one: one[:2])]

    def of_questions(self, sha256: str, project: str) -> list[dict[str, Any]]:
        """Of the same questions, word for word, the oldest first."""
        return [one for one in self.reports(project) if one["questions"]["sha256"] == sha256]

    def latest(self, project: str) -> dict[str, Any]:
        """Raises: NotFoundError if there is none."""
        reports = self.reports(project)
        if not reports:
            raise NotFoundError("no evaluation yet", hint=COMMAND)
        return reports[-1]
