# From the repository's root: docker build -f docker/gpu.Dockerfile -t salience:gpu .
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN ["pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", "/wheels", "."]

# The newest onnxruntime-gpu takes CUDA 13 and cuDNN 9 from here.
FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04
LABEL org.opencontainers.image.title="salience" \
      org.opencontainers.image.description="Saliency maps of pictures over HTTP and gRPC, on an NVIDIA GPU" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Wheels alone: a package that had to be compiled ends the build.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python3 -m venv /opt/salience \
    && /opt/salience/bin/pip install --no-cache-dir --only-binary :all: \
        "$(echo /wheels/salience-*.whl)[gpu,serve,superpixels]"
ENV PATH="/opt/salience/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN ["useradd", "--uid", "10001", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "salience"]
USER 10001:10001
VOLUME ["/models"]
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=4)"]
# Without --device a machine that shows no GPU would be served by its CPU.
ENTRYPOINT ["salience", "serve", "--host", "0.0.0.0", "--device", "cuda"]
