"""The formats that rows come in, one module each, and the choice among them (`detection`)."""
