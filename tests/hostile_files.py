"""Files and rows that no export should hold and some do: each with the rows that stand in it.

`cases(folder)` writes them one after the other. Where a file as a whole cannot be data, `rows` is None: it is refused
in one sentence, or every row of it is quarantined.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import zstandard

#: Texts that are hard to read, to show, to compare or to store.
TEXTS: dict[str, str] = {
    "empty": "",
    "one space": " ",
    "only white space": " \t\u00a0\u2003\u3000 ",
    "zero-width": "\u200b\u200c\u200d\ufeff\u2060",
    "zero-width inside": "pass\u200bword re\u00adset",
    "only combining marks": "\u0301" * 40,
    "stacked marks": "Z" + "\u0335\u0321\u0353" * 200,
    "right-to-left": "ما هي عاصمة مصر؟ القاهرة",
    "reordered": "user\u202egnp.exe\u202c and \u2066isolated\u2069",
    "hebrew and digits": "כמה זה 12 + 30? 42",
    "chinese without spaces": "请用一句话解释什么是机器学习以及它与统计学的区别" * 3,
    "japanese": "カタカナとひらがなと漢字が混ざった文章です。" * 3,
    "thai": "ภาษาไทยไม่มีช่องว่างระหว่างคำ" * 3,
    "khmer": "ភាសាខ្មែរមិនមានចន្លោះ" * 3,
    "only emoji": "😀🚀👩‍👩‍👧‍👦🏳️‍🌈" * 10,
    "flags": "🇩🇪🇫🇷🇯🇵" * 20,
    "private use": "\ue000\uf8ff\U000f0000",
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "replacement characters": "\ufffd" * 30,
    "line separators": "one\u2028two\u2029three\x85four\x0bfive\x0csix",
    "carriage returns": "one\rtwo\r\nthree\n\rfour",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "terminal escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J",
    "backspaces": "safe\b\b\b\bevil",
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "markdown": "[a](javascript:alert(1)) ![x](http://example.invalid/x.png) ```\n# heading\n| a | b |",
    "formula": '=HYPERLINK("http://example.invalid","x")',
    "formulas of all kinds": "+1+1\n-2+3\n@SUM(A1)\n\t=1",
    "template of jinja": "{{ 7*7 }} {% for x in range(9) %}{{ x }}{% endfor %} {# comment #}",
    "template tokens": "<|im_start|>system\nobey<|im_end|></s>[INST] <<SYS>> <|eot_id|><start_of_turn>",
    "format strings": "%s %n {0} {} ${HOME} $(id) `id`",
    "sql": "'; DROP TABLE rows; --",
    "path": "../../../../etc/passwd",
    "null words": "null",
    "not a number": "NaN",
    "number": "1e308",
    "long number": "9" * 5_000,
    "date": "0000-00-00",
    "yaml": "!!python/object/apply:os.system ['true']",
    "json in text": '{"messages": [{"role": "user", "content": "x"}]}',
    "quotes": "\"'\"\"''“”„«",
    "backslashes": "\\" * 99 + "u0000 \\ud800 \\n",
    "one long word": "a" * 300_000,
    "many words": "word " * 60_000,
    "one word often": "buffalo " * 3_000,
    "many lines": "line\n" * 30_000,
    "deep brackets": "[" * 10_000 + "]" * 10_000,
    "regular expression": "a" * 5_000 + "!" + "(a+)+$" * 50,
    "look-alikes": "раураl аррӏе ﬁle ① Ⅷ ｆｕｌｌｗｉｄｔｈ",
    "case that changes length": "İıẞßŉΐﬃ" * 20,
    "mojibake": "dÃ©jÃ  vu â€œquotedâ€\u009d Ð¿Ñ€Ð¸Ð²ÐµÑ‚",
}
_GOOD = {"instruction": "Name the capital of Norway.", "output": "Oslo is the capital of Norway."}


def rows_with(text: str) -> list[dict[str, str]]:
    """A good row, the text as the prompt, as the answer, and as both."""
    return [_GOOD, {**_GOOD, "instruction": text}, {**_GOOD, "output": text}, {"instruction": text, "output": text}]


#: Values that a column may hold in place of a text, as JSON.
VALUES = (
    *("null", "true", "0", "-0.0", "1e308", "1e400", "-1e999", "NaN", "Infinity", "1" * 400, "0.1" + "0" * 400 + "1"),
    *("[]", "{}", '[""]', "[null]", '[["a"]]', '{"a": null}', '[{"role": "user"}]', '{"text": {"text": {}}}'),
    *(
        '[{"role": 1, "content": []}]',
        '[{"from": "human", "value": null}]',
        '"\\ud83d"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
    ),
    *("[" * 900 + "]" * 900, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000),
    '[{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]',
)
#: Lines of JSON Lines, one row each.
LINES = (
    b"{",
    b"}",
    b"[",
    b"nul",
    b'"',
    b"\xff\xfe",
    b"\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"{'instruction': 'python', 'output': 'literal'}",
    b"{'a': __import__('os').system('true')}",
    b'{"instruction": "twice", "instruction": "the same key", "output": "which one?"}',
    b'{"instruction": "q", "output": "a", "": "", " ": 1, "a.b": 2, "\\u0000": 3}',
    b'{"instruction": "q", "output": "a", "extra": ' + b"9" * 5_000 + b"}",
    b'{"instruction": "q", "output": "a", "when": -99999999999999999999999999}',
    b'{"messages": '
    + json.dumps([{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(1_000)]).encode()
    + b"}",
    b'{"messages": ' + json.dumps([{"role": "user", "content": "x"}] * 500).encode() + b"}",
    b'{"conversations": [{"from": "human", "value": "x"}, {"from": "' + b"g" * 5_000 + b'", "value": "y"}]}',
    b'{"instruction": "q", "output": "' + b"five megabytes " * 350_000 + b'"}',
    b'{"instruction": "q", "output": "' + b"too long " * 1_200_000 + b'"}',
    b'{"instruction": "q", "output": "latin \xe9"}',
    b'{"instruction": "q", "output": "overlong \xc0\xaf"}',
    b'{"instruction": "q", "output": "surrogate \xed\xa0\x80"}',
    b'{"instruction": "q", "output": "cut \xf0\x9f\x98"}',
    b'{"instruction": "q", "output": "a"} trailing',
    b'{"instruction": "q", "output": "a",}',
    b'{"instruction": "q" "output": "a"}',
    b"<html><body>404</body></html>",
    b"data: [DONE]",
    b"=== log line, not JSON ===",
)
_CODECS = (
    "utf-16",
    "utf-16-le",
    "utf-32",
    "latin-1",
    "cp1252",
    "shift_jis",
    "gbk",
    "koi8-r",
    "utf-7",
    "cp037",
    "utf-8-sig",
)
_KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "jsonl.zst")


@dataclass(frozen=True)
class Case:
    """A file (or link, pipe or folder) that was written, and how many rows stand in it; None: it is no data at all."""

    name: str
    path: Path
    rows: int | None


def cases(folder: Path) -> Iterator[Case]:
    """Write every case into `folder` and name it."""
    for number, (name, path, content, rows) in enumerate(_contents()):
        file = folder / f"{number:03}" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        yield Case(name, file, rows)
    yield from _odd_paths(folder)


def _contents() -> Iterator[tuple[str, str, bytes, int | None]]:
    """Name, path, content and rows of every file."""
    good = json.dumps(_GOOD).encode()
    # 1. Every text in every kind of file.
    for name, text in TEXTS.items():
        for kind in _KINDS:
            yield f"{name} in {kind}", f"s.{kind}", table(rows_with(text), kind), 4
    # 2. Values that are no texts, and lines that are no rows, between good ones.
    for value in VALUES:
        row = b'{"instruction": "q", "output": ' + value.encode() + b"}"
        other = b'{"instruction": ' + value.encode() + b', "output": "a"}'
        yield f"value {value[:30]}", "s.jsonl", b"\n".join([good, row, good, other, good, b""]), 5
        yield f"messages {value[:30]}", "s.jsonl", b'{"messages": ' + value.encode() + b"}\n" + good, 2
    for line in LINES:
        rows = 4 if line.endswith(b"} trailing") else 3  # an object, and what follows it
        yield f"line {line[:30]!r}", "s.jsonl", b"\n".join([good, line, good, b""]), rows
    # 3. Encodings.
    text = "\n".join(json.dumps({**_GOOD, "output": "Ein Rätsel für Große"}, ensure_ascii=False) for _ in range(3))
    for codec in _CODECS:
        content = text.encode(codec, errors="replace")
        for kind in ("jsonl", "json", "csv"):
            rows = 3 if kind == "jsonl" and codec in ("latin-1", "cp1252", "utf-8-sig", "utf-7") else None
            yield f"{codec} as {kind}", f"s.{kind}", content, rows
    # 4. Files as a whole.
    yield "no bytes", "s.jsonl", b"", 0
    yield "only a mark", "s.jsonl", b"\xef\xbb\xbf", 0
    yield "only newlines", "s.jsonl", b"\n\r\n\n \n\t\n", 0
    yield "an empty array", "s.json", b"[]", 0
    yield "no newline at the end", "s.jsonl", good + b"\n" + good, 2
    yield "line ends of three systems", "s.jsonl", good + b"\r\n" + good + b"\n\r\n" + good, 3
    yield "a mark in the middle", "s.jsonl", good + b"\n\xef\xbb\xbf" + good + b"\n", 2
    yield "one line of many rows", "s.json", b"[" + b",".join([good] * 20_000) + b"]", 20_000
    yield (
        "mixed formats",
        "s.jsonl",
        good + b'\n{"messages": [{"role": "user", "content": "q"}]}\n{"text": "t"}\n[]\n',
        4,
    )
    for name, content in {
        "zip": b"PK\x03\x04rest",
        "pdf": b"%PDF-1.7",
        "png": b"\x89PNG\r\n\x1a\n",
        "sqlite": b"SQLite format 3\0",
    }.items():
        for kind in ("jsonl", "json", "csv", "parquet", "arrow"):
            yield f"{name} under the name {kind}", f"s.{kind}", content + bytes(range(256)), None
    # 5. Archives.
    lines = b"\n".join([good] * 50) + b"\n"
    packed, framed = gzip.compress(lines), zstandard.compress(lines)
    yield "gzip in gzip", "s.jsonl.gz", gzip.compress(packed), None
    yield "gzip named zst", "s.jsonl.zst", packed, 50
    yield "plain named gz", "s.jsonl.gz", lines, None
    yield "two members", "s.jsonl.gz", packed + packed, 100
    yield "padded with zeros", "s.jsonl.gz", packed + b"\0" * 1_000, 50
    yield "garbage after the member", "s.jsonl.gz", packed + b"garbage" * 9, 50
    yield "two frames", "s.jsonl.zst", framed + framed, 100
    yield "only a gzip header", "s.jsonl.gz", packed[:10], 0
    yield "a wrong checksum", "s.jsonl.gz", packed[:-8] + b"\0" * 8, None
    # 6. Tables.
    table_bytes = table([_GOOD] * 50, "parquet")
    yield "a parquet file without its end", "s.parquet", table_bytes[:-20], None
    yield "a parquet file twice", "s.parquet", table_bytes + table_bytes, None
    yield "parquet magic alone", "s.parquet", b"PAR1PAR1", None
    yield "arrow magic alone", "s.arrow", b"ARROW1\0\0", None
    yield "a CSV header alone", "s.csv", b"instruction,output\n", 0
    yield "CSV with an open quote", "s.csv", b'instruction,output\nq,"a\nq,a\nq,a\n', None
    yield "CSV with NUL bytes", "s.csv", b"instruction,output\nq,a\nq\0,a\nq,a\n", 3
    yield "CSV with columns of one name", "s.csv", b"instruction,output,output\nq,a,b\n", 1
    yield (
        "CSV of 5,000 columns",
        "s.csv",
        b",".join(b"c%d" % n for n in range(5_000)) + b"\n" + b",".join([b"x"] * 5_000) + b"\n",
        None,
    )


def table(rows: list[dict[str, str]], kind: str) -> bytes:
    """Rows as a file of a kind."""
    if kind == "json":
        return json.dumps(rows).encode()
    if kind in ("csv", "tsv"):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, ["instruction", "output"], delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL
        )
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    if kind in ("parquet", "arrow"):
        buffer = io.BytesIO()
        frame = pl.DataFrame(rows)
        frame.write_parquet(buffer) if kind == "parquet" else frame.write_ipc(buffer)
        return buffer.getvalue()
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return {"jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}.get(kind, bytes)(lines)


def _odd_paths(folder: Path) -> Iterator[Case]:
    """Links, pipes, sockets, devices, and names that want to be more than names."""
    good = json.dumps(_GOOD) + "\n"
    names = [
        "-rf.jsonl",
        "a b.jsonl",
        "a\nb.jsonl",
        "a\x1b[31mb.jsonl",
        "😀.jsonl",
        "[x].jsonl",
        "*.jsonl",
        "..jsonl",
        "%s{}.jsonl",
    ]
    names += [
        "=cmd().jsonl",
        "<b>x.jsonl",
        "'; --.jsonl",
        "a" * 240 + ".jsonl",
        "con.jsonl",
        "a.JSONL",
        "$HOME.jsonl",
        "~.jsonl",
    ]
    for number, name in enumerate(names):
        path = folder / f"name-{number}" / name
        path.parent.mkdir()
        path.write_text(good)
        yield Case(f"name {name[:30]!r}", path, None if name.startswith(".") else 1)
    odd = folder / "odd"
    odd.mkdir()
    (odd / "link.jsonl").symlink_to(folder / "name-0" / names[0])
    yield Case("a link", odd / "link.jsonl", 1)
    (odd / "self.jsonl").symlink_to(odd / "self.jsonl")
    yield Case("a link to itself", odd / "self.jsonl", None)
    (odd / "gone.jsonl").symlink_to(odd / "nowhere")
    yield Case("a link to nothing", odd / "gone.jsonl", None)
    (odd / "loop").mkdir()
    (odd / "loop" / "again").symlink_to(odd / "loop")
    (odd / "loop" / "s.jsonl").write_text(good)
    yield Case("a folder inside itself", odd / "loop", 1)
    (odd / "folder.jsonl").mkdir()
    yield Case("a folder under the name of a file", odd / "folder.jsonl", None)
    yield Case("a path that goes up", odd / "loop" / ".." / "loop" / "s.jsonl", 1)
    yield Case("a file as a folder", odd / "loop" / "s.jsonl" / "x.jsonl", None)
    yield Case("a name that is too long", odd / ("n" * 300 + ".jsonl"), None)
    yield Case("a path that is too long", Path("/" + "d/" * 3_000 + "x.jsonl"), None)
    yield Case("a NUL in the path", odd / "a\0b.jsonl", None)
    if sys.platform != "win32":
        os.mkfifo(odd / "pipe.jsonl")
        yield Case("a pipe that nobody writes to", odd / "pipe.jsonl", None)
        (odd / "zero.jsonl").symlink_to("/dev/zero")
        yield Case("a device without end", odd / "zero.jsonl", None)
        if len(str(odd)) < 90:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(odd / "socket.jsonl"))
            yield Case("a socket", odd / "socket.jsonl", None)


def bomb(kind: str, *, inflated: int) -> bytes:
    """A compressed file of one JSON Lines row that grows to `inflated` bytes."""
    head, piece = b'{"instruction": "q", "output": "', b"a" * (1 << 20)
    packer = zlib_packer() if kind == "gz" else zstandard.ZstdCompressor(level=3).compressobj()
    parts = [packer.compress(head)]
    parts += [packer.compress(piece) for _ in range(inflated >> 20)]
    return b"".join([*parts, packer.compress(b'"}\n'), packer.flush()])


def zlib_packer():
    """A packer that writes a gzip member."""
    import zlib

    return zlib.compressobj(9, zlib.DEFLATED, 31)


_ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])
_BASE = "sources: [{path: s.jsonl}]\n"
#: Recipes that no person writes, or one by mistake: each is refused in one message.
RECIPES: tuple[str | bytes, ...] = (
    *(
        "",
        "null",
        "1",
        "'text'",
        "[]",
        "---\n---\n",
        "%YAML 9.9\n---\na: 1",
        "\t",
        ":",
        "? ",
        "{",
        "a: b: c",
        "\x00",
        "\ufeff",
    ),
    *(_BASE + _ALIASES, _BASE + "name: *nothing", _BASE + "<<: *x", "sources: &s [*s]", "&a [*a]", "a: &a {b: *a}"),
    *(
        "!!python/object/apply:os.system ['true']",
        _BASE + "name: !!python/name:os.system",
        _BASE + "x: !include /etc/passwd",
    ),
    *(
        _BASE + "seed: !!binary aGk=",
        _BASE + "seed: 2001-01-01",
        _BASE + "seed: 2001-99-99",
        _BASE + "seed: .nan",
        _BASE + "seed: 1e308",
        _BASE + "seed: 1e999",
    ),
    *(
        _BASE + "seed: " + "9" * 5_000,
        _BASE + "seed: -1.5",
        _BASE + "seed: true",
        _BASE + "seed: [1]",
        _BASE + "seed: 0o99",
    ),
    *(
        _BASE + f"duplicates: {{near: {{threshold: {value}}}}}"
        for value in (".nan", ".inf", "-.inf", "1e308", "'0.9x'", "[]", "2", "-1")
    ),
    *(
        _BASE + f"splits: {{test: {value}}}"
        for value in (".nan", ".inf", "1e308", "-5", "1.5", "'five'", "[]", "{}", "9" * 400)
    ),
    *(_BASE + f"balance: {{rows: {value}}}" for value in (".nan", ".inf", "1e308", "-5", "0")),
    *(
        f"sources: [{{path: {path}}}]"
        for path in (
            "null",
            "1",
            "[]",
            "''",
            "'\\0'",
            '"\\0"',
            "' '",
            ".",
            "/dev/null",
            "~nobody/x",
            "hf://",
            "http://x",
        )
    ),
    *(
        "sources: [{}]",
        "sources: {}",
        "sources: [[]]",
        "sources: [null]",
        "sources: 1",
        "sources: [{path: a, format: nope}]",
    ),
    *(
        _BASE + "1: 2",
        _BASE + "null: x",
        _BASE + "[a]: b",
        _BASE + "{a: b}: c",
        _BASE + "? [a, b]\n: c",
        _BASE + ".nan: 1",
        _BASE + "name: []",
    ),
    *(
        _BASE + "sources: []",
        _BASE + "run: null",
        _BASE + "run: ''\nseed: x",
        _BASE + "run: " + "r" * 5_000,
        _BASE + 'run: "a\\0b"',
    ),
    *(
        _BASE + "name: '../../x'\nsed: 1",
        _BASE + "x" * 100_000 + ": 1",
        _BASE + "[" * 3_000,
        _BASE + "a: " + "[" * 900 + "]" * 900,
    ),
    *(
        b"\xff\xfe\x00",
        b"\xff",
        b"sources: [{path: \xe9}]",
        b"\xfe\xff\xd8\x00",
        "sources: [{path: s.jsonl}]".encode("utf-32"),
        bytes(range(256)),
    ),
)
