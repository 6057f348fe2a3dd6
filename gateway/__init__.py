"""Configuration, composition root, processes, command line. Knows everybody, known by nobody."""
