# Two commands do all: `make demo` (set-up and the quickstart) and `make test` (set-up and every test).
# Both need root: the fabric is made of network namespaces.

VENV ?= .venv
PYTEST_OPTIONS ?=

.PHONY: demo test check provision clean

demo: provision
	$(VENV)/bin/fabriclab run experiments/quickstart.yaml

test: provision check
	$(VENV)/bin/python -m pytest $(PYTEST_OPTIONS)

check: provision
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

provision:
	@VENV=$(VENV) .ci/provision

# What a killed run left on the machine; never anything of yours.
clean:
	$(VENV)/bin/fabriclab clean
