# SPDX-License-Identifier: MIT
# make            builds every program, each beside its source
# make basic      builds one; make extra/guard likewise
# make help       says what else there is

CFLAGS = -g -Wall
LDLIBS = -pthread -lrt

programs = $(patsubst %.c,%,$(wildcard *.c extra/*.c bench/*.c))
compile = $(strip $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS))

.DELETE_ON_ERROR:
.PHONY: all bench check check-all clean demo format help lecture plots FORCE

all: $(programs) extra/alloc.so

$(programs): %: %.c .flags
	$(compile) $< $(LDLIBS) -o $@

# The same source as a library to preload, optimised because it is measured.
extra/alloc: | extra/alloc.so
extra/alloc.so: extra/alloc.c .flags
	$(compile) -O2 -DPRELOAD -fPIC -shared $< $(LDLIBS) -o $@

# Holds the compiler and its flags: when one changes, everything is rebuilt.
.flags: FORCE
	@echo '$(compile) $(LDLIBS)' | cmp -s - $@ || \
	    echo '$(compile) $(LDLIBS)' >$@

# The tests build with the same compiler and flags, and know them by these.
export CC CFLAGS CPPFLAGS LDFLAGS MAKE

check:
	@tests/run $(T)

check-all:
	@tools/everywhere $(S)

measured = fsipc extra/xman bench/access bench/handover bench/ipc

bench: $(measured)
	@bench/run $(B)

plots: $(measured)
	@bench/run --plots=docs ipc counters handover

demo:
	@tools/demo $(D)

lecture:
	@tools/demo --lecture

clean:
	rm -f $(programs) extra/alloc.so .flags

format:
	clang-format -i $(addsuffix .c,$(programs))

help:
	@echo 'make              build everything'
	@echo 'make basic        build one program; make extra/guard likewise'
	@echo 'make check        run the tests; make check T=basic runs one'
	@echo 'make check-all    run them with other compilers, machines, shells ...'
	@echo 'make demo         present the handout; make demo D=fsipc:1,3 a part'
	@echo 'make lecture      present the 45 minutes of docs/lecture.md'
	@echo 'make bench        measure; make bench B=ipc one benchmark'
	@echo 'make plots        measure, and draw the pictures of it in docs/'
	@echo 'make clean        remove what make built'
	@echo 'make format       format the sources with clang-format'
	@echo 'CC, CFLAGS, CPPFLAGS and LDFLAGS are yours: make CC=clang CFLAGS=-O2'
