"""Machines with a real systemd to run commands on: in namespaces of this kernel, or under User-mode Linux.

debian.py builds and keeps the Debian roots; boot.py starts a machine; machine.py is what tests talk to.
Inside, agent.py runs the commands; outside, keeper.py sees to it that nothing outlives the test run.
"""
