# `make sweep` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install sweep test test-ray test-methods test-plain test-long lint bench chaos audit reference clean

sweep: install ## the main job on the built-in phantom hospitals
	$(BIN)/python sweeps/ssl_aug.py $(ARGS)

test: lint ## ruff, mypy, pytest: the tests that use Ray, which often wait, those of the methods, and the others side by side
	+$(MAKE) --jobs 3 --output-sync=target --no-print-directory test-ray test-methods test-plain

test-ray test-methods test-plain: export OMP_NUM_THREADS = 1
test-ray: install
	$(BIN)/pytest -p no:cacheprovider -m "ray and not long"
test-methods: install
	$(BIN)/pytest -p no:cacheprovider -m "not ray and not long" tests/methods
test-plain: install
	$(BIN)/pytest -p no:cacheprovider -m "not ray and not long" --ignore tests/methods

test-long: export OMP_NUM_THREADS = 1
test-long: install ## what takes minutes: clusters whose nodes come, go and are killed; every method learns; pages of the docs
	$(BIN)/pytest -p no:cacheprovider -m long

BENCHMARKS := probe_grid feed views training_step packing overhead search growth

bench: install ## every speed claim that needs no GPU, against its peer, in 10 to 15 minutes; a row each
	for name in $(BENCHMARKS); do echo "# $$name"; $(BIN)/python benchmarks/$$name.py || exit; done

chaos: install ## half an hour of random kills: is a trial lost, are the numbers the same?
	$(BIN)/python tests/simulated/chaos.py --log docs/chaos.log $(ARGS)

audit: install ## known vulnerabilities of the pinned packages: a report, never a failure
	@$(BIN)/python .ci/audit.py

reference: install ## every module's docstrings as pages: build/reference/index.html
	$(BIN)/python docs/make_reference.py build/reference

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/installed

# Written last, so an interrupted installation is done again.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean: ## everything that can be made again, but no run and no data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
