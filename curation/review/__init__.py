"""Looking at data and at runs: inspect, report, explain, replay, search, decide by hand."""
