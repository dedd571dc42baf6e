"""What is read of a text: words and keys, templates, encodings, languages, lengths, differences."""
