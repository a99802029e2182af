# The two commands of a newcomer are 'make demo' and 'make test'.

# One tag set everywhere: another one compiles SQLite's C again.
export GOFLAGS := -tags=sqlite_omit_load_extension
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 10
# A release adds -trimpath; here it would compile SQLite a second time.
BUILDFLAGS ?=

.PHONY: build deb demo run test soak bench unit lint fuzz loaders clean

build: loaders ## bin/lunboot, with the loaders of Debian's package ipxe inside when it is installed
	go build $(BUILDFLAGS) -ldflags "-X main.version=$(VERSION)" -o bin/lunboot ./cmd/lunboot
	go build $(BUILDFLAGS) -o bin/netlab ./cmd/netlab

# The loaders are GPL-2.0 and stay replaceable: see THIRD_PARTY.md.
loaders:
	@for f in undionly.kpxe undionly.kkpxe ipxe.pxe snponly.efi ipxe.efi; do \
	  if [ -e /usr/lib/ipxe/$$f ]; then install -m 0644 /usr/lib/ipxe/$$f services/loaders/embedded/$$f; fi; \
	done; \
	if v=$$(dpkg-query -W -f '$${Version}' ipxe 2>/dev/null); then echo "$$v" > services/loaders/embedded/VERSION; fi

deb: build ## bin/lunboot_VERSION_ARCH.deb
	deploy/debian/build bin/lunboot "$(VERSION)" bin

demo: ## boot a real machine in QEMU, from power-on to its operating system
	go run ./cmd/netlab demo

run: build ## an appliance on loopback with its data in ./demo: http://127.0.0.1:8080
	bin/lunboot serve --data demo --admin 127.0.0.1:8080 --boot 127.0.0.1:8081 --tftp 127.0.0.1:6969 --iscsi 127.0.0.1:3260 --dhcp off

test: lint unit fuzz ## everything that CI runs

unit: loaders
	go test -race -p 4 -timeout 45m ./... # most of them wait for machines, disks and deadlines
	go test -run TestNoAllocationPerCommand ./services/iscsi/session # the race detector allocates
	go test ./services/iscsi/socket # for the race detector no call is short

soak: build ## no limit of time: everything again and again, and hours of fuzzing
	LUNBOOT_SOAK=1 go test -race -count 5 -timeout 3h ./...
	for i in 1 2 3 4 5; do YES=1 go run ./cmd/netlab demo || exit 1; done
	bin/netlab bench --require
	.ci/fuzz 600

bench: build ## the hot paths, then each service under load beside others of its kind (where those are installed)
	go test -run '^$$' -bench . -benchmem ./services/... ./store/... ./cmd/lunboot
	bin/netlab bench

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	cd .ci/tools && go tool staticcheck -version >/dev/null
	"$$(cd .ci/tools && go tool -n staticcheck)" ./...

fuzz: ## every fuzz target, FUZZTIME seconds for those that read what machines send
	.ci/fuzz $(FUZZTIME)

clean:
	rm -rf bin demo
