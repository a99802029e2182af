# syntax=docker/dockerfile:1
# Both bases are arguments, so that a site can build from its own mirror. They
# must be of one Debian release: SQLite links against the C library.
ARG BUILD_BASE=golang:1.26-bookworm
ARG RUN_BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates ipxe libcap2-bin && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build BUILDFLAGS=-trimpath VERSION=${VERSION}

# The appliance needs the machines' broadcasts, so it runs on the host's network
# and as nobody in particular, with two capabilities and no others:
#   docker run --name lunboot --network host --cap-drop ALL --cap-add NET_BIND_SERVICE --cap-add NET_RAW \
#     --stop-timeout 60 -v lunboot:/var/lib/lunboot lunboot
# A folder of the host in place of the volume must belong to 10001. Flags go in as
# -e LUNBOOT_…; verbs run inside: docker exec lunboot lunboot machine list.
FROM ${RUN_BASE}
# Not every builder's COPY keeps a file's capabilities, so they are set here.
RUN --mount=from=build,target=/build install /build/src/bin/lunboot /usr/bin/ \
 && /build/usr/sbin/setcap cap_net_bind_service,cap_net_raw+ep /usr/bin/lunboot \
 && install -d -m 0750 -o 10001 -g 10001 /var/lib/lunboot
# Who vouches for a webhook or a provider of single sign-on; the slim base knows nobody.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/LICENSE /src/THIRD_PARTY.md /usr/share/doc/lunboot/
COPY --from=build /src/deploy/licenses /usr/share/doc/lunboot/licenses
USER 10001:10001
VOLUME /var/lib/lunboot
EXPOSE 67/udp 69/udp 4011/udp 80/tcp 3260/tcp 8080/tcp
HEALTHCHECK --interval=60s --timeout=30s CMD ["lunboot", "doctor"]
ENTRYPOINT ["lunboot"]
CMD ["serve"]
