"""The output of `siftune push`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from siftune.app.cli.terminal import table
from siftune.curation.publishing.hub import HubUpload
from siftune.curation.text.hidden_characters import visible


def push_report(upload: HubUpload, address: str | None, *, public: bool) -> RenderableType:
    """What was pushed and how it is loaded; without an `address` what would be, and the card.

    `public` says who may read it.
    """
    rows = [(name, f"{size / 1000:,.1f}") for name, size in upload.sizes().items()]
    readers = "everybody can read it" if public else "private: only you and those you let in can read it"
    files = table("Files", ["name", "kB"], rows)
    if address is None:
        return Group(
            Text(f"Nothing was pushed. To {upload.repository} would go ({readers}):", style="bold"),
            files,
            Text("The column `meta` holds every column of the input that is in no message.", style="yellow"),
            Text(f"\n{visible(upload.card)}"),
        )
    return Group(
        Text(f"Pushed to {address} ({readers})", style="bold"),
        files,
        Text(f'Load it with: datasets.load_dataset("{upload.repository}")'),
    )
