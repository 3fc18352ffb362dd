# syntax=docker/dockerfile:1
# The image that `make image` builds without Docker, for those who have it:
#
#   docker build --build-arg LDFLAGS="$(hack/ldflags.sh)" -t metrics-server .
#
# Nothing is in it but the static binary and a /tmp: no shell, no libraries, no certificates (kubelets and the
# kube-apiserver are verified by the cluster's own CA).

FROM --platform=$BUILDPLATFORM golang:1.26.11 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY cmd cmd
COPY pkg pkg
ARG TARGETOS TARGETARCH LDFLAGS="-s -w"
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -tags=grpcnotrace -ldflags "$LDFLAGS" -o /out/metrics-server ./cmd/metrics-server \
    && mkdir -m 1777 /out/tmp

FROM scratch
COPY --from=build /out/ /
# A number, because runAsNonRoot cannot judge a name.
USER 65532:65532
ENTRYPOINT ["/metrics-server"]
LABEL org.opencontainers.image.title="metrics-server" \
      org.opencontainers.image.description="Resource metrics of nodes and pods for kubectl top and the autoscalers" \
      org.opencontainers.image.licenses="Apache-2.0"
