# Every target makes its own environment in $(VENV) first; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# TensorRT-RTX has wheels for x86-64 alone; elsewhere its engine is left out.
ENGINES = onnxruntime openvino $(shell $(BIN)/python -c "from importlib.util import find_spec; print('tensorrt-rtx' * bool(find_spec('tensorrt_rtx')))")
LINTED := src src/salience/export src/salience/runtime src/salience/training tests benchmarks

# The native build needs ONNX Runtime's wheel alone, not the 7 GB of the whole environment.
JOBS := $(shell getconf _NPROCESSORS_ONLN)
NATIVE_PYTHON := build/venv/bin/python
NATIVE = cmake --preset $(1) -DPython3_EXECUTABLE=$(CURDIR)/$(NATIVE_PYTHON) && cmake --build --preset $(1) --parallel $(JOBS)
FUZZ_SECONDS ?= 600

SERVING := tests/runtime/service tests/runtime/scale tests/runtime/video tests/export/model_repository tests/benchmarks/test_serving.py \
	tests/test_docs.py tests/test_containers.py

# Where there is an NVIDIA driver, ONNX Runtime for it and what compiles for it; else what the tests have.
GPU_VENV := $(if $(shell command -v nvidia-smi),.venv-gpu,$(VENV))

.PHONY: quickstart test test-all test-serving gpu-check lint format default-bundle native native-cuda sanitize fuzz clean

quickstart: $(READY)
	$(BIN)/python export/build_engine.py multis --precision fp32 fp16 --engine $(ENGINES) --output bundles/multis
	$(BIN)/python export/build_engine.py arn --engine onnxruntime --output bundles/arn
	$(BIN)/python export/build_engine.py lps --engine onnxruntime --output bundles/lps
	$(BIN)/python export/build_engine.py gicd --engine onnxruntime --output bundles/gicd
	$(BIN)/python benchmarks/sample_photos.py quickstart/photos quickstart/cats
	$(BIN)/salience predict quickstart/photos --bundle bundles/multis --output quickstart/multis
	$(BIN)/salience predict quickstart/photos --bundle bundles/multis --output quickstart/multis-cutouts --kind cutout
	$(BIN)/salience predict quickstart/photos --bundle bundles/multis --output quickstart/multis-overlays --kind overlay
	$(BIN)/salience predict quickstart/photos --bundle bundles/arn --output quickstart/arn
	$(BIN)/salience promote quickstart/photos --prior quickstart/multis --bundle bundles/lps --output quickstart/lps
	$(BIN)/salience cosaliency quickstart/cats --bundle bundles/gicd --output quickstart/gicd
	@echo "The pictures are in $(CURDIR)/quickstart: photos and cats, and what each method makes of them."

# Small networks gain nothing by threads: two processes of one thread each take two thirds of the time.
test: $(READY)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-all: $(READY)
	$(BIN)/python -m pytest -m ""

# In the environment of the other tests, into which the 200 packages of the services go only here.
test-serving: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,serving]'
	$(BIN)/python -m pytest $(SERVING)

gpu-check: $(GPU_VENV)/.ready
	$(GPU_VENV)/bin/python -m benchmarks.gpu --output build/gpu/gpu.json --report build/gpu/gpu.md

lint: $(READY)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix $(LINTED)
	$(BIN)/ruff format $(LINTED)

default-bundle: $(READY)
	$(BIN)/python export/build_engine.py multis --precision fp16-weights --engine onnxruntime openvino --output runtime/default_bundle

native: $(NATIVE_PYTHON)
	$(call NATIVE,release)
	ctest --preset release

native-cuda: $(NATIVE_PYTHON)
	$(call NATIVE,cuda)

sanitize: $(NATIVE_PYTHON)
	$(call NATIVE,asan)
	ctest --preset asan
	$(call NATIVE,tsan)
	ctest --preset tsan

fuzz: $(NATIVE_PYTHON)
	$(call NATIVE,fuzz)
	tests/native/fuzz/run.sh build/fuzz $(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) .venv-gpu bundles quickstart build

$(NATIVE_PYTHON): cmake/fetch_headers.sh
	cmake/fetch_headers.sh
	$(PYTHON) -m venv build/venv
	$(NATIVE_PYTHON) -m pip install --quiet --upgrade pip onnxruntime
	@touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# What cannot be installed on a machine is a part of the check that says so.
.venv-gpu/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --upgrade pip
	.venv-gpu/bin/python -m pip install --quiet --editable '.[gpu,export,training]'
	for extra in tensorrt-rtx-run tensorrt; do \
	  .venv-gpu/bin/python -m pip install --quiet --editable ".[$$extra]" || echo "not installed: $$extra"; \
	done
	.venv-gpu/bin/python -m pip install --quiet cupy-cuda13x || echo "not installed: cupy"
	@touch $@
