# Short names for the things one does all day. Everything is done by ./test (tools/lanes.py) and tools/setup.py.

LANES = unit property user root criu cve fuzz systemd uml qemu engines bats

.PHONY: lane-ns lane-uml lane-qemu build check test engines bench figures format clean $(LANES:%=test-%)

build:    ## build/rt and build/rt-init, and what the tests need
	@./test --setup

check:    ## under a minute, no privilege: ruff, mypy, unit tests
	@./test check

test:     ## every lane that can run here; without qemu, which is slow
	@./test

$(LANES:%=test-%): test-%:    ## one lane
	@./test $*

engines: build    ## all cases of the engines; ./test engines leaves out most of the rootless daemons'
	@RT_ENGINES=all ./test engines

lane-ns lane-uml lane-qemu: lane-%: build    ## a machine of the lane systemd, uml or qemu, to type commands in (root)
	@PYTHONPATH=.:tests .venv/bin/python -m lab.machines.shell $*

bench: build    ## rt against runc, crun and bwrap
	@tools/with-python benchmarks/run.py

figures: build    ## the same on a quiet machine: benchmarks/results.json, and docs/speed.svg from it
	@.venv/bin/python -m pip install --quiet matplotlib
	@tools/with-python benchmarks/run.py --results benchmarks/results.json
	@.venv/bin/python benchmarks/draw.py benchmarks/results.json docs/speed.svg

format: build
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:    ## everything that was built or cached here
	rm -rf build demo .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
