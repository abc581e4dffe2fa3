# From the repository's root: docker build -f docker/cpu.Dockerfile -t salience:cpu .
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN ["pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", "/wheels", "."]
RUN ["python", "-m", "venv", "/opt/salience"]
# Wheels alone: a package that had to be compiled ends the build.
RUN /opt/salience/bin/pip install --no-cache-dir --only-binary :all: \
    "$(echo /wheels/salience-*.whl)[cpu,serve,superpixels]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="salience" \
      org.opencontainers.image.description="Saliency maps of pictures over HTTP and gRPC, on the CPU" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/salience /opt/salience
ENV PATH="/opt/salience/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN ["useradd", "--uid", "10001", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", "salience"]
USER 10001:10001
VOLUME ["/models"]
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=4)"]
ENTRYPOINT ["salience", "serve", "--host", "0.0.0.0"]
