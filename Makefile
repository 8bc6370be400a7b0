# make help lists what there is to make.

GO       ?= go
RACE      = $(if $(shell command -v gcc),-race)
TEST     ?= $(GO) test $(RACE) -shuffle=on
FUZZTIME ?= 10s
LINT      = $(GO) tool -modfile=tools/go.mod golangci-lint run
# Without gRPC's trace pages html/template is not linked, which would keep every
# exported method of every package: a fifth of the program.
TAGS      = grpcnotrace
NEED_RUN  = openssh-client=ssh openssl=openssl
NEED_TEST = $(NEED_RUN) gnutls-bin=certtool gcc=gcc libc6-dev=/usr/include/stdlib.h libssh-dev=/usr/include/libssh/libssh.h openssh-server=/usr/sbin/sshd \
            mmdebstrap=mmdebstrap systemd-container=systemd-nspawn nftables=nft iproute2=ip e2fsprogs=mkfs.ext4 perl-base=perl lintian=lintian rpm=rpm groff-base=groff \
            patch=patch dropbear-bin=dbclient putty-tools=plink python3-paramiko=/usr/lib/python3/dist-packages/paramiko busybox=busybox xauth=xauth util-linux=flock prometheus=promtool
NEED_BENCH = $(NEED_RUN) openssh-server=/usr/sbin/sshd patch=patch

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile

.PHONY: run
run: ## show the main job on an etcd of its own; ONCE=1 ends after it
	@tools/need $(NEED_RUN)
	@$(GO) build -C integration -o $(CURDIR)/build/demo ./cmd/demo
	@build/demo -dir build/run $(if $(ONCE),-once)

.PHONY: build
build: ## build/signerd
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -o build/ ./cmd/...

.PHONY: packages
packages: ## dist/*.deb and dist/*.rpm
	GO=$(GO) MAKE=$(MAKE) packaging/build

.PHONY: tags
tags:
	@echo $(TAGS)

.PHONY: test
test: ## unit, script and integration tests
	@tools/need $(NEED_TEST)
	@$(MAKE) --no-print-directory test-go # a new make sees what was installed

.PHONY: test-go
test-go:
	$(TEST) ./...
	cd integration && $(TEST) -timeout 20m ./...

.PHONY: test-etcd-versions
test-etcd-versions: ## the integration tests on etcd 3.6 and 3.5
	cd integration && SIGNERD_ETCD=v3.6 $(TEST) -timeout 20m ./...
	cd integration && SIGNERD_ETCD=v3.5 $(TEST) -timeout 20m ./...

.PHONY: long
long: ## the large counts: a thousand races, twenty kills, every cut
	@tools/need $(NEED_TEST)
	@$(MAKE) --no-print-directory long-go

.PHONY: long-go
long-go:
	SIGNERD_LONG=1 $(TEST) -v -timeout 60m ./...
	cd integration && SIGNERD_LONG=1 $(TEST) -v -timeout 60m ./...

.PHONY: bench
bench: ## signerd beside its rivals, about ten minutes; rewrites doc/performance.*
	@tools/need $(NEED_BENCH)
	$(GO) build -C integration -o $(CURDIR)/build/bench ./bench
	build/bench -out doc/performance.json

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$package || exit 1; \
		done; \
	done

.PHONY: soak
soak: ## half an hour of faults on real hosts, and faults planted in signerd; SOAK='-soak.seed=N' repeats one
	@tools/need $(NEED_TEST)
	cd integration && $(GO) test -v -timeout 3h ./soak -soak.for=30m $(SOAK)

.PHONY: lint
lint: ## the linters
	@tools/need shellcheck=shellcheck
	$(GO) vet ./...
	$(LINT) ./...
	cd integration && $(GO) tool -modfile=../tools/go.mod golangci-lint run -c ../.golangci.yml ./...
	shellcheck .ci/run tools/need tools/ssh-audit integration/bench/forced-command.sh packaging/build packaging/first-boot.sh packaging/signer-renew packaging/scripts/* integration/testdata/faulty-ssh integration/testdata/kill-here
	shellcheck --severity=warning integration/hosts/hosts

.PHONY: tidy
tidy: ## go.mod and go.sum are as go mod tidy leaves them
	$(GO) mod tidy -diff
	cd integration && $(GO) mod tidy -diff

.PHONY: check
check: tidy lint test ## everything CI does
