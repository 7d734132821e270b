"""The catalogue: tables and folders of audio in, checked frames out."""
