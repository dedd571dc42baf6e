"""Sources in, examples out: every input row is an example, or quarantined with its file, row and reason."""

from siftune.curation.ingest.sources import IngestReport, Item, SourceReport, Tally, fingerprint, named, read, stream

__all__ = ["IngestReport", "Item", "SourceReport", "Tally", "fingerprint", "named", "read", "stream"]
