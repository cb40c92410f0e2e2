# One image for every process: web (as below), `python -m app.jobs.drainer`, `.worker`, `.clock`, `python -m app.setup` and
# `python -m app COMMAND`. It runs as any user of group 0, with a read-only root; /data and /tmp are written to.
#
#   docker build --tag portico .                          # --sbom=true attests what is in it
#   docker build --build-arg REGISTRY=mirror.example/ .   # where the base image comes from, with its slash
ARG REGISTRY=""
ARG PYTHON_VERSION=3.12

FROM ${REGISTRY}python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/portico
COPY requirements.txt ./
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes --requirement requirements.txt
COPY config.py gunicorn.conf.py wsgi.py pyproject.toml ./
COPY asset asset
COPY migrations migrations
COPY tools/__init__.py tools/orphans.py tools/
COPY app app
# Nothing can be compiled later: the root is read-only.
RUN /opt/venv/bin/python -m compileall -q -j 0 /opt/portico /opt/venv/lib

FROM ${REGISTRY}python:${PYTHON_VERSION}-slim
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/portico /opt/portico
RUN install --directory --owner 10001 --group 0 --mode 0770 /data
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CONFIG_SERVER_ENVIRONMENT=production \
    CONFIG_SERVER_HOST=0.0.0.0 \
    CONFIG_STORAGE_DATA_DIR=/data
WORKDIR /opt/portico
USER 10001:0
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# For web processes; the other services of compose.yaml switch it off, and /readyz names those that are missing.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"CONFIG_SERVER_PORT\", 8000)}/healthz', timeout=4)"]
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:application"]
