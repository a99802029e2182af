# syntax=docker/dockerfile:1
# Both bases are arguments, so that a site can build from its own mirror. They
# must be of one Debian release: SQLite links against the C library.
ARG BUILD_BASE=golang:1.26-bookworm
ARG RUN_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ipxe libcap2-bin && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build BUILDFLAGS=-trimpath VERSION=${VERSION} && setcap cap_net_bind_service,cap_net_raw+ep bin/lunboot

# The appliance needs the machines' broadcasts, so it runs on the host's network
# and as nobody in particular, with two capabilities and no others:
#   docker run --network host --cap-drop ALL --cap-add NET_BIND_SERVICE --cap-add NET_RAW \
#     -v lunboot:/var/lib/lunboot lunboot
FROM ${RUN_BASE}
COPY --from=build /src/bin/lunboot /usr/bin/lunboot
COPY --from=build /src/LICENSE /src/THIRD_PARTY.md /usr/share/doc/lunboot/
COPY --from=build /src/deploy/licenses /usr/share/doc/lunboot/licenses
RUN mkdir -m 0750 /var/lib/lunboot && chown 10001:10001 /var/lib/lunboot
USER 10001:10001
VOLUME /var/lib/lunboot
EXPOSE 67/udp 69/udp 80/tcp 3260/tcp 8080/tcp
HEALTHCHECK --interval=30s --timeout=5s CMD ["lunboot", "doctor"]
ENTRYPOINT ["lunboot"]
CMD ["serve"]
