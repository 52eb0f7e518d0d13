"""The Python API: containers, sandboxes and pools inside of another program.

Stands beside `cli`, on the same `container`; nobody imports it but the package itself, which gives out its
names, and the pytest plugin. It is a guest: no signal handler, umask, working directory or other state of the
whole process is touched, nor any descriptor or child that it has not made. docs/api.md shows it at work.
"""
