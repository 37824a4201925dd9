# Reelhook: `docker build -t reelhook .`; docs/deploy/ says how it is run.
# The receiver is the default; the other roles are other commands of the same image: `reelhook worker`, …
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN ["python", "-m", "venv", "/opt/reelhook"]
# Every file of every dependency is checked against the lock, what builds the project too. A layer of its own, since
# the lock changes less often than the code.
COPY requirements.lock ./
RUN ["/opt/reelhook/bin/pip", "install", "--require-hashes", "-r", "requirements.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY receiver receiver
COPY submitter submitter
# What only builds and installs is not for the image.
RUN /opt/reelhook/bin/pip install --no-deps --no-build-isolation . \
    && /opt/reelhook/bin/pip uninstall --yes editables hatchling packaging pathspec pluggy tomlkit trove-classifiers pip

FROM python:3.12-slim
# A number, so that Kubernetes can tell that it is not root; 10001 is nobody on the host.
RUN groupadd --gid 10001 reelhook \
    && useradd --uid 10001 --gid reelhook --no-create-home --home-dir /var/lib/reelhook --shell /usr/sbin/nologin reelhook \
    && install --directory --owner=reelhook --group=reelhook --mode=0700 /var/lib/reelhook
COPY --from=build /opt/reelhook /opt/reelhook
# Inside a container only its own network can reach it, so it listens there; keys and public URL have to be given.
ENV PATH=/opt/reelhook/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 PORT=8000 REELHOOK_DATA_DIR=/var/lib/reelhook LOG_FORMAT=json
USER 10001:10001
# The database, with SQLite. With PostgreSQL nothing of worth is in it.
VOLUME ["/var/lib/reelhook"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Of `reelhook serve`, and of a worker whose REELHOOK_ADMIN_PORT is this port; the others turn it off, as compose.yaml does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# No shell in between: it would keep the SIGTERM to itself.
CMD ["reelhook", "serve"]
