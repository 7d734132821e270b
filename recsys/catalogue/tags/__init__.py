"""What an audio file says of itself: the tags inside it, whatever kind they are of."""
