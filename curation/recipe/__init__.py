"""The recipe: one YAML file holds everything a run does. Its sections, how it is read, and one to start from."""
