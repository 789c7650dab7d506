# keytrail: the one entry point.  `make help` lists the targets.
#
# SAN=address|thread builds into a folder of its own with that sanitizer; CC=clang is welcome.

VERSION := $(shell cat VERSION)
CC      ?= gcc
PYTHON  ?= /usr/bin/python3
SAN     ?=
B       := build$(if $(SAN),/$(SAN))
PREFIX  ?= /usr/local

# ---- packages, by the name Debian 12 gives them -----------------------------------------------

PACKAGES_BUILD := gcc libc6-dev make pkg-config libevent-dev libssl-dev libjansson-dev node-llhttp
PACKAGES_DEMO  := $(PACKAGES_BUILD) openssl ca-certificates curl python3
PACKAGES_CHECK := $(PACKAGES_BUILD) clang clang-format clang-tidy cppcheck libclang-rt-14-dev \
                  libcmocka-dev python3
PACKAGES_TEST  := $(sort $(PACKAGES_CHECK) $(PACKAGES_DEMO) python3-pytest python3-pytest-xdist \
                  python3-prometheus-client python3-jsonschema python3-cryptography prometheus git \
                  procps)
PACKAGES_BENCH := $(PACKAGES_DEMO) nginx-light haproxy wrk nghttp2-client

install_packages = tests/install-packages $(1)

# ---- flags -------------------------------------------------------------------------------------

pc = $(shell pkg-config $(1) 2>/dev/null)

WARNINGS := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wold-style-definition -Wpointer-arith -Wcast-qual -Wwrite-strings -Wvla -Wformat=2 \
            -Wundef -Wdouble-promotion -Wnull-dereference -Wimplicit-fallthrough
HARDEN   := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fcf-protection \
            -fstack-clash-protection
LINK     := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
OPT      := -O2 -g

ifeq ($(SAN),address)
HARDEN := -fPIE
OPT    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK   += -fsanitize=address,undefined
else ifeq ($(SAN),thread)
HARDEN := -fPIE
OPT    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
LINK   += -fsanitize=thread
endif

# llhttp: the library where pkg-config knows one, else the C sources of package node-llhttp, built
# strict (the package's header defaults to lenient).
ifneq ($(call pc,--modversion libllhttp),)
LLHTTP_CFLAGS := $(call pc,--cflags libllhttp)
LLHTTP_LIBS   := $(call pc,--libs libllhttp)
LLHTTP_OBJ    :=
else
LLHTTP_SRC    := $(wildcard /usr/share/llhttp/*.c)
LLHTTP_CFLAGS := -isystem /usr/share/include/llhttp -isystem /usr/share/include/node -DLLHTTP_STRICT_MODE=1
LLHTTP_LIBS   :=
LLHTTP_OBJ    := $(patsubst /usr/share/llhttp/%.c,$B/llhttp/%.o,$(LLHTTP_SRC))
endif

LIBS     := libevent_core libevent_extra libevent_pthreads openssl jansson
CPPFLAGS := -D_GNU_SOURCE -DKEYTRAIL_VERSION='"$(VERSION)"' -DKEYTRAIL_ROUTES='"$(PREFIX)/share/keytrail/routes"' \
            -Iinclude -Iproxy $(LLHTTP_CFLAGS) $(call pc,--cflags $(LIBS))
CFLAGS   ?=
KT_CFLAGS = -std=c11 $(WARNINGS) $(OPT) $(HARDEN) -pthread -MMD -MP $(CFLAGS)
LDLIBS    = $(LLHTTP_LIBS) $(call pc,--libs $(LIBS)) -pthread

# ---- what is built -----------------------------------------------------------------------------

LIB_SRC   := $(sort $(wildcard src/*/*.c))
PROXY_SRC := $(sort $(wildcard proxy/*.c proxy/*/*.c))
KMS_SRC   := $(sort $(wildcard tests/kms/*.c))
UNIT_SRC  := $(sort $(wildcard tests/unit/test_*.c))
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/fuzz_*.c))

LIB_OBJ   := $(LIB_SRC:%.c=$B/%.o)
PROXY_OBJ := $(PROXY_SRC:%.c=$B/%.o)
KMS_OBJ   := $(KMS_SRC:%.c=$B/%.o)
UNIT      := $(UNIT_SRC:tests/unit/%.c=$B/unit/%)

LIB := $B/libkeytrail.a

.PHONY: all demo test check format format-check tsan fuzz bench install image clean help \
        unit integration layers tidy cppcheck soak packages-%
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: $B/keytrail $B/kms ## build keytrail and the stand-in key service

$B/keytrail: $(PROXY_OBJ) $(LIB)
	$(CC) $(OPT) $(LINK) -o $@ $(PROXY_OBJ) $(LIB) $(LDLIBS)

$B/kms: $(KMS_OBJ) $(LIB)
	$(CC) $(OPT) $(LINK) -o $@ $(KMS_OBJ) $(LIB) $(LDLIBS)

$(LIB): $(LIB_OBJ) $(LLHTTP_OBJ)
	rm -f $@
	ar rcs $@ $^

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(KT_CFLAGS) -c -o $@ $<

$B/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	$(CC) $(LLHTTP_CFLAGS) -std=c11 -w $(OPT) $(HARDEN) -c -o $@ $<

# Proxy modules but main, so that a unit test can reach them.
$B/unit/%: tests/unit/%.c $(LIB) $(filter-out $B/proxy/main.o,$(PROXY_OBJ))
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests/unit $(KT_CFLAGS) $(LINK) -o $@ $< \
	    $(filter-out $B/proxy/main.o,$(PROXY_OBJ)) $(LIB) $(call pc,--libs cmocka) $(LDLIBS)

unit: $(UNIT)
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

-include $(LIB_OBJ:.o=.d) $(PROXY_OBJ:.o=.d) $(KMS_OBJ:.o=.d) $(UNIT:=.d)

clean: ## remove everything that was built
	rm -rf build
