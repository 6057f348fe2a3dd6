# Voxgate. The core: docker build -t voxgate .
# With PyTorch for the engines that need it: docker build -t voxgate:models --build-arg MODELS=1 .
# (CPU only: add --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu)
FROM python:3.11-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /opt/voxgate

# What changes seldom comes first, so that it is built seldom.
COPY constraints.txt ./
COPY requirements/ requirements/
RUN /opt/voxgate/bin/pip install --require-hashes --only-binary :all: -r requirements/core.lock

ARG MODELS=""
ARG TORCH_INDEX=""
RUN if [ -n "$MODELS" ]; then \
      /opt/voxgate/bin/pip install -c constraints.txt -r requirements/models.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}; \
    fi

COPY pyproject.toml README.md LICENSE ./
COPY domain/ domain/
COPY volume/ volume/
COPY pipeline/ pipeline/
COPY store/ store/
COPY scp/ scp/
COPY dicomweb/ dicomweb/
COPY inference/ inference/
COPY dicom_out/ dicom_out/
COPY gateway/ gateway/
RUN /opt/voxgate/bin/pip install --no-deps .


FROM python:3.11-slim

# PDF reports embed DejaVu, which has the letters of more languages than what PDF brings with it.
RUN apt-get update \
 && apt-get install -y --no-install-recommends fonts-dejavu-core \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin voxgate \
 && install -d -o voxgate -g voxgate -m 0700 /data
COPY --from=build /opt/voxgate /opt/voxgate

ENV PATH=/opt/voxgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TCP_NODELAY=1 \
    VOXGATE_STORE__PATH=/data
WORKDIR /data
USER voxgate
VOLUME /data
EXPOSE 11112 5000

HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or os.environ.get('VOXGATE_HTTP__PORT') or 5000}/health\", timeout=4)"]

# The supervisor ends its children on SIGTERM: associations are finished, the running step goes back to the queue.
STOPSIGNAL SIGTERM
ENTRYPOINT ["voxgate"]
CMD ["serve"]
