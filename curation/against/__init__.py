"""Earlier sets: what `against` in a recipe names, opened so that new rows can be compared with it."""
