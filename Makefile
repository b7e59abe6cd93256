# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export LVC_TEST_ASSETS ?= $(abspath ../shared/assets)

.PHONY: demo test test-lesser test-slow test-targets test-wheel runtime-wheel test-runtime-wheel lint fuzz fuzz-quick bench \
	inspect-kernels prepare-gpu test-gpu bench-gpu clean

# uv resolves and installs the 5 GB of packages four times faster than pip; compiled now, the first command starts fast
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not targets" -q

# the suite as if the machine were a lesser processor, such as one with AVX2 only: `make test-lesser LESSER=x86-64-v2`
LESSER ?= x86-64-v3
test-lesser: $(VENV)/.installed
	LVC_NATIVE=$(LESSER) $(BIN)/python -m pytest -n 2 -m "not slow and not targets" -q

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow -q

# code for ARM, emulated (Debian: apt-get install gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf qemu-user-static): its own
# tests, and those of all operators as if this machine were one
EMULATED ?= cortex-a72 cortex-a76 neoverse-v1 armv7
test-targets: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m targets -q
	for cpu in $(EMULATED); do LVC_NATIVE=$$cpu $(BIN)/python -m pytest -n 2 -m "not slow" -q $(OPERATORS) && \
	LVC_NATIVE=$$cpu $(BIN)/python -m pytest -m slow -q $(NETWORKS) -k "resnet20" || exit 1; done
NETWORKS := tests/backends/tvm/test_integer_models.py
OPERATORS := $(addprefix tests/backends/tvm/test_,contractions.py elementwise.py integer.py integer_matmul.py \
	integer_products.py joined_places.py layouts.py math.py movement.py nested_joins.py not_a_number.py ordering.py \
	reductions.py sampling.py shifted_divisions.py)

# the suite against the built wheel, in an environment that does not see the checkout
test-wheel: $(VENV)/.installed
	$(BIN)/python tools/test_wheel.py

# the wheel that runs models on a device, into dist/: see docs/devices.md
runtime-wheel: $(VENV)/.installed
	$(BIN)/python tools/runtime_wheel.py

BOARD_PORT ?= 7582
# what docs/devices.md says, in an environment that has what the wheel asks for and nothing else; takes CMake
test-runtime-wheel: runtime-wheel
	$(PYTHON) -m venv --clear build/device
	build/device/bin/python -m pip install --quiet --disable-pip-version-check dist/lvc_runtime-*.whl
	$(BIN)/lvc compile torchvision.models:squeezenet1_1 --shape 1x3x64x64 --labels imagenet -o build/device/small.lvc
	cd build/device && bin/lvc-run small.lvc && bin/python -m lvc_runtime --include-dir
	cmake -S examples/cxx -B build/device/cxx -DMODEL=$(abspath build/device/small.lvc) \
		-Dlvc_DIR=$$(build/device/bin/python -m lvc_runtime --cmake-dir)
	cmake --build build/device/cxx
	umask 077; $(BIN)/python -c 'import secrets; print(secrets.token_hex(32))' > build/device/board.key
	build/device/bin/lvc-serve --port $(BOARD_PORT) --key-file build/device/board.key & board=$$!; \
	for try in 1 2 3 4 5 6 7 8 9 10; do sleep 1; $(BIN)/lvc bench build/device/small.lvc --repeats 3 \
		--device localhost:$(BOARD_PORT) --key-file build/device/board.key && break; done; code=$$?; kill $$board; exit $$code
	-build/device/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "numpy<2"
	cd build/device && bin/lvc-run small.lvc

# a type checker finds a package by its folder, so it gets the installed layout as links
lint: $(VENV)/.installed
	mkdir -p .typecheck/lvc
	for part in __init__.py __main__.py py.typed; do ln -sfn ../../compiler/lvc/$$part .typecheck/lvc/$$part; done
	for part in compiler passes backends; do ln -sfn ../../$$part .typecheck/lvc/$$part; done
	ln -sfn ../compiler/lvc_runtime .typecheck/lvc_runtime
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tools:.typecheck $(BIN)/mypy tools/fetch_cifar10.py tools/fuzz.py tools/inspect_kernels.py tools/runtime_wheel.py

# random models against PyTorch and ONNX Runtime, see docs/fuzzing.md: five minutes that are always the same, and an hour
FUZZ_SEED ?= 0
fuzz-quick: $(VENV)/.installed
	$(BIN)/python tools/fuzz.py --minutes 5 --seed $(FUZZ_SEED)

fuzz: $(VENV)/.installed
	$(BIN)/python tools/fuzz.py --minutes 60 --seed $(FUZZ_SEED)

# the suite beside ONNX Runtime, OpenVINO and PyTorch: a quarter of an hour on two idle cores; goes on where it stopped
bench: $(VENV)/.installed
	$(BIN)/python tools/bench.py

# the innermost loops and the tiles of the suite's kernels on four processors, see docs/kernels.md: half an hour
inspect-kernels: $(VENV)/.installed
	$(BIN)/python tools/inspect_kernels.py
	$(BIN)/python tools/inspect_kernels.py --int8

# models for an NVIDIA GPU: prepared on any machine, then tested and raced where there is one, in less than eight minutes
# each; what is left over goes on with the next call. GPU=cuda:h100 prepares, tests and races code for that one
GPU ?= cuda:sm_75
prepare-gpu: $(VENV)/.installed
	$(BIN)/python tools/gpu_suite.py prepare --target $(GPU)

test-gpu: $(VENV)/.installed
	$(BIN)/python tools/gpu_suite.py test --target $(GPU)

bench-gpu: $(VENV)/.installed
	$(BIN)/python tools/gpu_suite.py bench --target $(GPU)

clean:
	rm -rf $(VENV) .typecheck build dist *.egg-info
