# Convoy on NVIDIA GPUs: CUDA and cuDNN come with the locked packages, the driver from the host (NVIDIA Container Toolkit).
FROM python:3.11.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/convoy
COPY requirements/image-gpu.lock requirements/
RUN /opt/convoy/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/image-gpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY convoy convoy
COPY models models
COPY serve serve
COPY loadtest loadtest
RUN /opt/convoy/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.11-slim-bookworm
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 1000 --no-create-home --shell /usr/sbin/nologin convoy
COPY --from=build /opt/convoy /opt/convoy
RUN find /opt/convoy/lib -type d -path '*/nvidia/*/lib' > /etc/ld.so.conf.d/convoy-nvidia.conf && ldconfig
# All files are written under /tmp, so that the root file system can be read-only.
ENV PATH=/opt/convoy/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tmp
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=3s --start-period=90s \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/-/healthz', timeout=2)"]
CMD ["convoy", "up", "--host", "0.0.0.0"]
