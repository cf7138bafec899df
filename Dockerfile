# Two stages: what builds stays behind; what runs is Python, the pinned dependencies and lbproxy.

FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# For the relay's extension; it stays behind in this stage.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

# Dependencies first: they change less often than the source, and stay in the build's cache.
COPY requirements/build.txt requirements/run.txt requirements/
RUN pip install --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /opt/lbproxy \
    && pip --python /opt/lbproxy install --require-hashes --requirement requirements/run.txt

COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY lbproxy lbproxy
RUN LBPROXY_EXT=1 pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/lbproxy install --no-deps --no-index /wheels/*.whl \
    && /opt/lbproxy/bin/lbproxy version


FROM python:3.11-slim
LABEL org.opencontainers.image.title="lbproxy" \
      org.opencontainers.image.description="A layer-4 TCP load-balancing proxy" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/lbproxy /opt/lbproxy
ENV PATH=/opt/lbproxy/bin:$PATH PYTHONUNBUFFERED=1
# Not root. Ports below 1024 still work where the engine lets unprivileged users bind them, as most do.
USER 65532:65532
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["lbproxy", "status", "--health"]
ENTRYPOINT ["lbproxy"]
CMD ["run", "-c", "/etc/lbproxy/lbproxy.yaml"]
