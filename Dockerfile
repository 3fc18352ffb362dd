# The image that `make image` builds without Docker, for those who have it:
#
#   docker build $(hack/ldflags.sh -docker) -t metrics-server .
#
# Nothing is in it but the static binary and a /tmp: no shell, no libraries, no certificates (kubelets and the
# kube-apiserver are verified by the cluster's own CA). It needs BuildKit, Docker's default builder since version 23
# (before that, DOCKER_BUILDKIT=1), and names no frontend image with a "syntax" line: BuildKit's own does, so nothing
# is fetched for it.

FROM --platform=$BUILDPLATFORM golang:1.26.11 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY hack/ldflags.sh hack/
COPY cmd cmd
COPY pkg pkg
ARG TARGETOS TARGETARCH
# hack/ldflags.sh reads the stamp from the environment.
ARG VERSION COMMIT TREE_STATE BUILD_DATE
# The files carry the date of the commit, not of the build.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOAMD64=v1 GOARM64=v8.0 \
    go build -trimpath -buildvcs=false -tags=grpcnotrace -ldflags "$(hack/ldflags.sh)" \
      -o /out/metrics-server ./cmd/metrics-server \
    && mkdir -m 1777 /out/tmp \
    && touch -d "${BUILD_DATE:-1970-01-01T00:00:00Z}" /out/metrics-server /out/tmp

FROM scratch
COPY --from=build /out/ /
# A number, because runAsNonRoot rejects names.
USER 65532:65532
ENTRYPOINT ["/metrics-server"]
ARG VERSION=v0.0.0-unknown COMMIT=unknown BUILD_DATE=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="metrics-server" \
      org.opencontainers.image.description="Resource metrics of nodes and pods for kubectl top and the autoscalers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.created="$BUILD_DATE" \
      org.opencontainers.image.revision="$COMMIT" \
      org.opencontainers.image.version="$VERSION"
