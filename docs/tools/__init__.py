"""What builds the site from the pages beside it: reference tables out of the code, and pictures out of figures."""
