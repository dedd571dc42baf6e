"""Tables of text: separators, titles above the header, line ends, and quotes that quote or do not."""

from __future__ import annotations

import csv
import io

import pytest

from siftune.curation.formats.faults import Fault
from siftune.curation.ingest.file_rows import read_rows

ROWS = [{"question": f'How "is" {i}, said; aloud?', "answer": f"It | is\nsaid {i}."} for i in range(6)]
PLAIN = [{"question": f"How is {i} said?", "answer": f"It is said {i}."} for i in range(12)]


def read(folder, name, text, **options):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    warnings = []
    return list(read_rows(path, warn=warnings.append, **options)), warnings


def written(rows, **options):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("separator", list(",;\t|"))
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(tmp_path, separator, line_end, name):
    rows = [{key: text.replace("\n", line_end) for key, text in row.items()} for row in ROWS]
    text = written(rows, delimiter=separator, lineterminator=line_end)
    assert read(tmp_path, name, text) == (rows, [])
    assert read(tmp_path, name, f"sep={separator}{line_end}{text}") == (rows, [])


def test_a_named_separator_that_is_unusual(tmp_path):
    assert read(tmp_path, "a.csv", "sep=^\nquestion^answer\nq^a\n")[0] == [{"question": "q", "answer": "a"}]


@pytest.mark.parametrize("title", ["Export of our help desk", "Export of our help desk, 1 March 2026", "Export,,\n\n"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_title_lines_above_the_header(tmp_path, title, separator):
    found, warnings = read(tmp_path, "a.csv", f"{title}\n{written(ROWS, delimiter=separator)}")
    assert found == ROWS
    assert len(warnings) == 1
    assert "above the header were left out: Export" in warnings[0]
    odd = [{"frage": "q", "antwort": "a"}] * 3
    assert read(tmp_path, "a.csv", f"Ein Titel\n{written(odd, delimiter=separator)}")[0] == odd


def test_a_file_of_one_column_has_no_title(tmp_path):
    assert read(tmp_path, "a.csv", "prompt\nSay, now\nAnd, then\nLast, one\n")[0][0] != {"Say": "And"}


def test_backslashes_before_quotes(tmp_path):
    rows = [{"question": f'Say "{i}", now', "answer": f'"{i}" it \\n is,\nin C:\\dir.'} for i in range(5)]
    text = "question,answer\n" + "".join(
        ",".join('"' + cell.replace('"', '\\"') + '"' for cell in row.values()) + "\n" for row in rows
    )
    assert read(tmp_path, "a.csv", text)[0] == rows
    doubled = written(rows, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL)
    if "C:\\\\dir" in doubled:  # newer versions of Python escape the escape character as well
        assert read(tmp_path, "a.csv", doubled)[0] == rows
    # A backslash at the end of a cell is no escape.
    paths = [{"question": "Where?", "answer": f"C:\\{i}\\"} for i in range(5)]
    assert read(tmp_path, "a.csv", written(paths, quoting=csv.QUOTE_ALL))[0] == paths


QUOTES = {
    "opens and never closes": {4: '"How is it', 8: '"And this'},
    "closes inside of a later line": {4: '"How is it', 8: 'What is "this" then'},
    "around a word at the beginning": {4: '"Skipping" chains: why?'},
    "around all": {4: '"How is it"', 7: '"Half'},
    "once": {11: '"How is it'},
}


@pytest.mark.parametrize("separator", ["\t", "|"])
@pytest.mark.parametrize("case", QUOTES)
def test_quotes_that_do_not_quote(tmp_path, case, separator):
    rows = [{**row, "question": QUOTES[case].get(i, row["question"])} for i, row in enumerate(PLAIN)]
    text = "".join(separator.join(row.values()) + "\n" for row in [{"q": "question", "a": "answer"}, *rows])
    found, warnings = read(tmp_path, "a.tsv", text)
    assert found == rows
    assert any("do not quote" in warning for warning in warnings)
    late = "".join(
        separator.join(row.values()) + "\n" for row in [{"q": "question", "a": "answer"}, *PLAIN * 600, *rows]
    )
    found, warnings = read(tmp_path, "a.tsv", late)
    assert found[-12:] == rows or case == "around all"
    assert len(found) == 12 * 601
    assert any("do not quote" in warning for warning in warnings)


def test_quotes_that_quote_in_tabs(tmp_path):
    rows = [{"question": f'How "is"\t{i}?', "answer": f"It is\nsaid\n{i}."} for i in range(5)]
    assert read(tmp_path, "a.tsv", written(rows, delimiter="\t")) == (rows, [])


def test_records_that_span_lines_like_rows_are_counted(tmp_path):
    swallowed = 'question,answer,source\nq,a,s\nq,"open,s\nq,a,s\nq,close",s\nq,a,s\n'
    _, warnings = read(tmp_path, "b.csv", swallowed)
    assert any("1 records span lines" in warning for warning in warnings)


def test_text_after_a_closing_quote_is_never_lost(tmp_path):
    found, warnings = read(tmp_path, "a.csv", 'question,answer\n"Skipping" chains?,"It, is"\n"Why" so?,It is.\n"q",a\n')
    assert isinstance(found[0], Fault)
    assert found[1:] == [{"question": '"Why" so?', "answer": "It is."}, {"question": "q", "answer": "a"}]
    assert "1 lines do not quote" in warnings[0]


def test_blanks_before_quotes(tmp_path):
    text = '"question", "answer"\n"How, now?", "Well, so."\n'
    assert read(tmp_path, "a.csv", text)[0] == [{"question": "How, now?", "answer": "Well, so."}]
