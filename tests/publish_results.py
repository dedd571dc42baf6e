"""Write what a finished run found into docs/results.md and the README, and photograph its pages: one run, one script.

    python tests/publish_results.py runs/demo     # tables, README summary and docs/screenshots (needs a Chromium)
    python tests/publish_results.py runs/mix      # tables only: nothing was trained

The text of the photographed pages goes to docs/screenshots/pages.json; tests/test_results.py compares its figures with
the tables.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from siftune.curation import markdown  # noqa: E402
from siftune.curation.atomic_files import write_json  # noqa: E402
from siftune.curation.review.funnel import funnel, kept_sentence  # noqa: E402
from siftune.curation.review.leakage import certificate_sentence, random_split_sentence  # noqa: E402
from siftune.curation.run.folder import RunFolder  # noqa: E402
from siftune.training.evaluation.verdict import Verdict  # noqa: E402
from tests.app.screenshots import photograph  # noqa: E402

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results.md"
SCREENSHOTS = ROOT / "docs" / "screenshots"
COMMANDS = {"demo": "make demo", "mix": "siftune curate tests/benchmarks/mix.yaml"}


def machine() -> str:
    """The processor, its vector instructions and the memory of this machine, in words."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    gib = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}, {vectors}), {gib:.0f} GiB, no GPU used"


def stage_table(run: RunFolder) -> str:
    rows = [
        (step.stage, f"{step.rows:,}", f"{step.rows - step.kept:,}", f"{step.kept:,}", f"{step.seconds:.1f}")
        for step in funnel(run.manifest)
    ]
    return "\n".join(
        markdown.table(("stage", "rows in", "removed", "rows out", "seconds"), rows, numbers=range(1, 5))
    ).strip()


def tables(run: RunFolder, name: str) -> str:
    """The block of docs/results.md."""
    parts = [
        f"`{COMMANDS[name]}` on {machine()}:",
        stage_table(run),
        f"{kept_sentence(run)} {random_split_sentence(run)} {certificate_sentence(run)}",
    ]
    if run.verdict_markdown.is_file():
        parts.append(re.sub(r"^#", "###", run.verdict_markdown.read_text(encoding="utf-8"), flags=re.MULTILINE).strip())
    return "\n\n".join(parts)


def summary(run: RunFolder, name: str) -> str:
    """The block of the README: no figure that docs/results.md does not hold, no sentence stronger than the verdict."""
    verdict = Verdict.read(run)
    if verdict is None:
        raise SystemExit(f"{run.path} has no verdict yet; make it with: siftune compare {run.path}")
    losses = ", ".join(f"{arm} {loss:.4f}" for arm, loss in verdict.losses.items())
    rows = " ".join([kept_sentence(run), random_split_sentence(run), certificate_sentence(run)])
    floor = [verdict.noise_floor.sentence] if verdict.noise_floor else []
    paragraphs = (
        f"`{COMMANDS[name]}` on {machine()}: {rows}",
        f"{verdict.headline} Held-out loss in nats per token: {losses}.",
        " ".join([f"*{verdict.condition}*", *floor]),
    )
    return "\n\n".join(paragraphs)


def replace_block(path: Path, name: str, text: str) -> None:
    """Put `text` between the marks of a block."""
    document, count = re.subn(
        rf"<!-- {name} -->.*?<!-- /{name} -->",
        lambda _: f"<!-- {name} -->\n{text}\n<!-- /{name} -->",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{path.name} holds {count} blocks called {name}; there must be one")
    path.write_text(document, encoding="utf-8")


def main() -> None:
    run = RunFolder.open(sys.argv[1])
    name = run.manifest.recipe_name
    replace_block(RESULTS, name, tables(run, name))
    if name == "demo":
        replace_block(README, name, summary(run, name))
        pages = photograph(run.path, SCREENSHOTS)
        shown = {page: pages[page] for page in ("overview", "verdict")}  # pages of figures; the others hold rows
        write_json(shown, SCREENSHOTS / "pages.json")


if __name__ == "__main__":
    main()
