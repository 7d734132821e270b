"""Audio files in, sound vectors out. Importing the package itself loads neither torch nor a decoder."""
