# SPDX-License-Identifier: MIT
# make            builds every program, each beside its source
# make basic      builds one; make extra/guard likewise
# make help       lists the other targets

CFLAGS = -g -Wall
LDLIBS = -pthread -lrt

programs = $(patsubst %.c,%,$(wildcard *.c extra/*.c bugs/*.c bench/*.c))
compile = $(strip $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS))

.DELETE_ON_ERROR:
.PHONY: all bench check clean demo help lecture

all: $(programs) extra/alloc.so

$(programs): %: %.c .flags
	$(compile) $< $(LDLIBS) -o $@

# The same source as a library. Real programs run on it, so it is optimized.
extra/alloc.so: extra/alloc.c .flags
	$(compile) -O2 -DPRELOAD -fPIC -shared $< $(LDLIBS) -o $@

# Holds the compiler and its flags. When one changes, everything is rebuilt.
ifneq ($(file <.flags),$(compile) $(LDLIBS))
.PHONY: .flags
endif
.flags:
	$(file >$@,$(compile) $(LDLIBS))

# The tests compile programs of their own with the same compiler and flags.
export CC CPPFLAGS CFLAGS LDFLAGS

check: all
	@tests/run $(T)

bench: all
	@bench/run $(B)

# A make in the demo prints what it would print in a terminal.
demo: all
	@unset MAKEFLAGS MAKELEVEL; tools/demo $(D)

lecture: all
	@unset MAKEFLAGS MAKELEVEL; tools/demo $$(sed -n 's/^| `\([a-z_]*:[0-9,]*\)`.*/\1/p' docs/lecture.md)

clean:
	rm -f $(programs) extra/alloc.so .flags

help:
	@echo 'make              build everything; make basic builds one program'
	@echo 'make check        run the tests; make check T=basic runs one'
	@echo 'make demo         present the handout; make demo D=basic:1,3 a part'
	@echo 'make lecture      present the 45 minutes of docs/lecture.md'
	@echo 'make bench        measure; make bench B=ipc runs one benchmark'
	@echo 'make clean        remove what make built'
	@echo 'CC, CPPFLAGS, CFLAGS and LDFLAGS are yours: make CC=clang CFLAGS=-O2'
