"""What tuning the retriever and what each of the four strategies is worth, on real questions.

    python scripts/bench_quality.py retriever DATA --work FOLDER
    python scripts/bench_quality.py strategies DATA/xquad --work FOLDER --minutes 40

`retriever`: DATA holds medquad/ and xquad/. The packaged encoder is tuned by the product's own training on the
train questions of MedQuAD and ranks all its documents for the test questions; then those of XQuAD, which it never
saw. Documents are encoded whole, title first, as one passage of the model's own length; every document is scored
for every question. `--preset` article and library are trained the same time by other recipes: the article's (cosine
similarity, each positive with a random negative) and what sentence-transformers does unasked.

`strategies`: base, fine_tuned, rag and hybrid answer the test questions of XQuAD through the running server, with
adapters that were trained on questions of other articles by `local-llm train adapter`:

    base           no adapter, no context; told to be brief
    fine_tuned     tuned on questions and answers, no context
    rag            no adapter, three retrieved passages; told by three examples how to answer
    rag_zero_shot  the same without examples, only told to be brief
    plain_rag      the adapter of fine_tuned, with the same passages
    hybrid         tuned on questions with retrieved passages (RAFT)
    refusal        the same, but tuned to refuse where the gold passage is absent (--refusal)
    raft_gold      the adapter of hybrid, the gold passage and two others that were retrieved
    ..._absent     three retrieved passages of other documents, none of which holds the answer: refusing is right

Answers are greedy, 48 tokens at most, eight at once. Compared are words (exact match, F1, containment), without
citation markers. What the model is told and what it reads is in its time and in no other: nothing is cached between
settings but equal beginnings of prompts, by the engine.

Intervals are 95 % intervals of a bootstrap over whole groups of questions: the focuses of MedQuAD, the articles
of XQuAD. What was trained, encoded and answered is kept in FOLDER: a run that was cut off goes on, one that is done
only reports. Prints tables and ends with one line of JSON, which FOLDER/results.json holds as well.
"""

import argparse
import json
import sys

from quality_bench.retriever import bench as retriever
from quality_bench.strategies import bench as strategies

from local_llm import offline
from local_llm.cli.output import talk
from local_llm.errors import LocalLLMError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, module in (("retriever", retriever), ("strategies", strategies)):
        part = parts.add_parser(name)
        module.add_arguments(part)
        part.set_defaults(run=module.run)
    options = parser.parse_args()
    offline.apply()
    try:
        result = options.run(options)
    except LocalLLMError as error:
        talk(f"error: {error.message}" + (f"\n  try: {error.hint}" if error.hint else ""))
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
