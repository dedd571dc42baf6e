"""The chat template inside a GGUF file writes what it writes in transformers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

pytest.importorskip("llama_cpp")

from siftune.curation.errors import UserError
from siftune.training.chat_template import ChatTemplate
from siftune.training.inference.llamacpp_engine import _GgufTemplate
from tests.training import chat_template_table as table

SOURCES = table.templates()
DIALOGUES = [[table.ASK], [table.ASK, table.ANSWER, table.ASK2], [table.message("system", "Be brief."), table.ASK]]
REFUSED = "refused"


class Metadata:
    """What a loaded GGUF file says about its template, without the file's weights."""

    model_path = "model.gguf"

    def __init__(self, source: str) -> None:
        self.metadata = {"tokenizer.chat_template": source}

    def token_bos(self) -> int:
        return 0

    def token_eos(self) -> int:
        return 1

    def detokenize(self, ids: Sequence[int], *, special: bool) -> bytes:
        assert special
        return [b"<s>", b"</s>"][ids[0]]


def prompt(template: ChatTemplate, dialogue: list[dict[str, str]]) -> str:
    try:
        return template.prompt(dialogue)
    except UserError:
        return REFUSED


@pytest.mark.parametrize("name", SOURCES)
def test_prompts_are_those_of_transformers(name: str) -> None:
    source = SOURCES[name]
    transformers, gguf = ChatTemplate(table.tokenizer_for(source)), ChatTemplate(_GgufTemplate(Metadata(source)))
    prompts = [prompt(transformers, dialogue) for dialogue in DIALOGUES]
    assert [prompt(gguf, dialogue) for dialogue in DIALOGUES] == prompts
    assert REFUSED not in prompts[:2]


def test_a_file_without_a_template_is_refused() -> None:
    model = Metadata("")
    model.metadata = {}
    with pytest.raises(UserError, match="no chat template"):
        _GgufTemplate(model)
