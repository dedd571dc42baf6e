"""Write what a finished run found into the README, so that no number there was typed by hand.

python tests/readme.py runs/demo [MINUTES that `make demo` took from a fresh clone]
python tests/readme.py runs/mix
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def funnel(manifest: dict) -> str:
    lines = ["| stage | rows in | removed | rows out | seconds | peak MiB |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {each['stage']} | {each['rows']:,} | {each['rows'] - each['kept']:,} | {each['kept']:,} "
        f"| {each['seconds']:.1f} | {each['peak_mb']:,} |"
        for each in manifest["stages"]
    ]
    return "\n".join(lines)


def leaks(manifest: dict) -> str:
    shares = ", ".join(f"{100 * each['share']:.0f} % ({each['measure']})" for each in manifest["naive_split"])
    certificate = manifest["certificate"]
    return (
        f"A naive random split of the same data would have leaked {shares} of its test rows. The certificate over the "
        f"{certificate['rows']['test']} held-out rows: {certificate['comparisons']:,} comparisons, "
        f"{certificate['pairs']} pairs at or above a leak threshold."
    )


def section(name: str, text: str, readme: str) -> str:
    block = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
    return re.sub(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: block, readme, flags=re.DOTALL)


def main() -> None:
    run = Path(sys.argv[1])
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    took = f" (in {sys.argv[2]} minutes from a fresh clone)" if len(sys.argv) > 2 else ""
    machine = "on 2 cores of an x86-64 machine with AVX-512, 24 GiB, no GPU"
    mix = manifest["recipe_name"] == "mix"
    command = "siftune curate tests/benchmarks/mix.yaml" if mix else "make demo"
    parts = [f"What `{command}` found {machine}{took}:", funnel(manifest), leaks(manifest)]
    if (run / "verdict.md").is_file():
        verdict = (run / "verdict.md").read_text(encoding="utf-8")
        parts.append(re.sub(r"^#", "###", verdict, flags=re.MULTILINE).strip())
    readme = section("mix" if mix else "demo", "\n\n".join(parts), README.read_text(encoding="utf-8"))
    README.write_text(readme, encoding="utf-8")


if __name__ == "__main__":
    main()
