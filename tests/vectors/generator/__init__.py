"""A second implementation of the formats, as far as golden vectors need it."""
