"""The process: command line, composition root, journal and supervisor."""
