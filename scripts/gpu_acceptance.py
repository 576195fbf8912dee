"""What this product does on this GPU: whether it is right, then how fast, each figure against what physics allows.

    python scripts/gpu_acceptance.py                     # all parts, on a CUDA device
    python scripts/gpu_acceptance.py --minutes 25 --out FILE
    python scripts/gpu_acceptance.py --only lora exact-search
    python scripts/gpu_acceptance.py --list              # the parts, what they need, and what of that is missing
    python scripts/gpu_acceptance.py --small             # the same at tiny sizes on a CPU: no figures to keep

Run from a checkout with torch, transformers and peft; what else is needed by a part and is not there is told, and
the part skipped. Nothing is fetched: models are made at random from a configuration, tokenizers on the spot.
Training, index, encoder and gateway are the product's own. Every run is a process of its own with a limit of time;
one that crashes or runs out of memory is told, and the next one runs. Parts come by their worth; those for which
--minutes do not suffice are told as not run.

Prints a table and ends with one line of JSON, which --out holds from the first run on. The exit status is 1 if what
must hold did not, or a part failed.
"""

import argparse
import json
import sys
from pathlib import Path

from acceptance import table
from acceptance.parts import parts
from acceptance.session import Session

from local_llm import offline

BAD = ("wrong", "failed", "crashed")


def main() -> int:
    options = arguments()
    offline.apply()
    every = parts(small=options.small)
    if options.list:
        table.print_parts(every)
        return 0
    named = options.only or [part.name for part in every if part.in_small or not options.small]
    work = options.work.expanduser().resolve()
    session = Session(work, options.out or work / "acceptance.json", small=options.small, minutes=options.minutes)
    results = session.run([part for part in every if part.name in named])
    table.print_results(results)
    print(json.dumps(session.save()))
    return 1 if any(result.status in BAD for result in results) else 0


def arguments() -> argparse.Namespace:
    names = [part.name for part in parts(small=True)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--list", action="store_true", help="the parts and what they need")
    parser.add_argument("--small", action="store_true", help="tiny sizes on the CPU; no engine unless named")
    parser.add_argument("--minutes", type=float, help="in all; parts beyond are not run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: acceptance.json in the work folder")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/local-llm-bench/acceptance"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
