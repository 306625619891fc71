# Two commands do all: `make demo` (set-up and the quickstart) and `make test` (set-up and every test).
# Both need root: the fabric is made of network namespaces.

VENV ?= .venv
PYTEST_OPTIONS ?=

.PHONY: demo test test-vm check provision clean

demo: provision
	$(VENV)/bin/fabriclab run experiments/quickstart.yaml

test: provision check
	$(VENV)/bin/python -m pytest $(PYTEST_OPTIONS)

# The kernel's datapath, RED and DCTCP on this Debian's own kernel, emulated; and that a broken RED is found. Apart from `test`: it
# needs mmdebstrap and qemu-system-x86, and takes minutes.
test-vm:
	tests/vm/check

check: provision
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

provision:
	@VENV=$(VENV) .ci/provision

# What a killed run left on the machine; never anything of yours.
clean:
	$(VENV)/bin/fabriclab clean
