"""CRIU, the program that saves and restores processes: found, started and spoken to.

Knows its command line, its protocol and its log. Must not know containers, bundles or state directories:
callers pass descriptors, process ids and paths in.
"""
