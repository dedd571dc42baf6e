"""Curation on a Ray cluster: tasks over parts of the rows take the measures, the driver decides as on one machine."""
