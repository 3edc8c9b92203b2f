/* SPDX-License-Identifier: MIT */
/*
 * interleave: two processes add 1 to a counter, in the order that you give.
 *
 *     $ ./extra/interleave 121212
 *     load  0
 *                                         load  0
 *     add   1
 *                                         add   1
 *     store 1
 *                                         store 1
 *
 * mmap(2), fork(2), sched_yield(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct page {
    unsigned counter;     /* not atomic: the turns keep the processes apart */
    _Atomic size_t steps; /* the number of steps taken so far */
};
static struct page *page;

static const char *order; /* each digit is the process that takes the step */
static char me;           /* '1' in the parent, '2' in the child */

static size_t increments_of(char process);
static void add_1(void);
static void take_turn(void);
static void end_turn(const char *step, unsigned value);

int main(int argc, char *argv[])
{
    if (argc != 2) errx(2, "usage: interleave ORDER, such as 121212");
    order = argv[1];
    if (*order == '\0' || order[strspn(order, "12")] != '\0')
        errx(2, "'%s': an order consists of the digits 1 and 2", order);
    const size_t expected = increments_of('1') + increments_of('2');

    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    setvbuf(stdout, NULL, _IOLBF, 0); /* print the steps as they happen */
    signal(SIGPIPE, SIG_IGN);         /* or a process dies during its turn */

    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    me = child == 0 ? '2' : '1';
    if (child == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (child == 0 && getppid() != parent) exit(1);
    for (size_t i = increments_of(me); i > 0; i--) add_1();
    if (child == 0) return 0;

    if (wait(NULL) == -1) err(1, "wait");
    printf("expected %zu, actual %u, lost %zu\n", expected, page->counter,
           expected - page->counter);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* An increment consists of three steps. */
static size_t increments_of(char process)
{
    size_t steps = 0;
    for (size_t i = 0; order[i] != '\0'; i++) {
        if (order[i] == process) steps++;
    }
    if (steps % 3 != 0)
        errx(2, "'%s': process %c has %zu steps, but an increment has 3", order,
             process, steps);
    return steps / 3;
}

static void add_1(void)
{
    take_turn();
    unsigned value = page->counter;
    end_turn("load ", value);

    take_turn();
    value = value + 1;
    end_turn("add  ", value);

    take_turn();
    page->counter = value;
    end_turn("store", value);
}

static void take_turn(void)
{
    alarm(10); /* ends the parent if the child has been killed */
    while (order[page->steps] != me) sched_yield();
}

static void end_turn(const char *step, unsigned value)
{
    const int column = me == '1' ? 0 : 36;
    printf("%*s%s %u\n", column, "", step, value);
    page->steps++;
}
