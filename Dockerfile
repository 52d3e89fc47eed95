# Images of Windrow and of its demo. The last stage is the default: `docker build -t windrow .`
#
#   docker build --target windrow    -t windrow .           the server
#   docker build --target demo       -t windrow-demo .      the demo applications and sidecars
#   docker build --target fluent-bit -t windrow-fluent-bit .  Fluent Bit with the configurations of fluent-bit/
#
# All run as user 10001 with a read-only root file system; what they write goes to the volumes named below.

ARG RUST_VERSION=1.95.0
ARG DEBIAN_VERSION=12.12
ARG FLUENT_BIT_VERSION=5.1.1

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
# C compiler and make for SQLite, zstd, ring and mimalloc.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package windrow --bin windrow --package windrow-demo --bin demo \
    && install -D --strip --target-directory=/out target/release/windrow target/release/demo
# Folders that volumes are mounted on take their owner from the image.
RUN install --directory --owner=10001 --group=10001 /empty

FROM debian:${DEBIAN_VERSION}-slim AS base
RUN groupadd --system --gid 10001 windrow \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin windrow

FROM base AS demo
COPY --from=build /out/demo /usr/local/bin/demo
COPY --from=build --chown=10001:10001 /empty /var/log/app
COPY --from=build --chown=10001:10001 /empty /var/lib/sidecar
USER 10001:10001
VOLUME ["/var/log/app", "/var/lib/sidecar"]
EXPOSE 8080 3000 3002 3003 9100
ENTRYPOINT ["demo"]
CMD ["server"]

# The official image has no shell and no HTTP client: `demo health` asks its health page.
FROM fluent/fluent-bit:${FLUENT_BIT_VERSION} AS fluent-bit
COPY --from=build /out/demo /usr/local/bin/demo
COPY --from=build --chown=10001:10001 /empty /var/lib/fluent-bit
COPY fluent-bit /etc/windrow-fluent-bit
WORKDIR /etc/windrow-fluent-bit
ENV STATE_DIR=/var/lib/fluent-bit LOG_PATH=/var/log/app/*.log \
    WINDROW_HOST=windrow WINDROW_PORT=24224 HTTP_PORT=2021
USER 10001:10001
VOLUME ["/var/lib/fluent-bit"]
EXPOSE 2021
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["demo", "health", "http://127.0.0.1:2021/api/v1/health"]
CMD ["/fluent-bit/bin/fluent-bit", "-c", "tail-forward.conf"]

FROM base AS windrow
COPY --from=build /out/windrow /usr/local/bin/windrow
COPY --from=build --chown=10001:10001 /empty /var/lib/windrow
COPY windrow.toml /etc/windrow/windrow.toml
# The file holds the defaults: mount your own over it, or set WINDROW_… variables, which win.
ENV WINDROW_CONFIG=/etc/windrow/windrow.toml \
    WINDROW_DATA_DIR=/var/lib/windrow
USER 10001:10001
VOLUME ["/var/lib/windrow"]
EXPOSE 24224/tcp 24224/udp 2020/tcp
# SIGTERM: stop accepting, acknowledge what is durable, drain for at most WINDROW_SHUTDOWN_GRACE (25 s), exit 0.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["windrow", "health"]
ENTRYPOINT ["windrow"]
CMD ["serve"]
