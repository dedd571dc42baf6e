"""Coverage-guided fuzzing by Atheris (libFuzzer): `python -m tests.fuzz.run TARGET SECONDS`.

It prints the inputs that were tried and the coverage that was reached, and stops at the first fault; the input is kept
in build/fuzz. `make fuzz` runs all targets, ten minutes in all.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["siftune"]):
    import siftune.curation.decontamination.program_behaviour
    import siftune.curation.ingest.sources
    import siftune.curation.recipe.loading
    import siftune.training.masks  # noqa: F401 - all that the targets call is imported here, with counters

from tests.fuzz.targets import TARGETS, seeds


def main() -> None:
    target, seconds = sys.argv[1:]
    folder = Path("build/fuzz")
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds(target):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=60",
        "-rss_limit_mb=4096",
        "-max_len=20000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/{target}-", str(corpus)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
