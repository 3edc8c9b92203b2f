/* SPDX-License-Identifier: MIT */
/*
 * reorder: two processes load values that no order of their steps explains.
 *
 *     process 1      process 2
 *     x = 1          y = 1
 *     r1 = y         r2 = x         the last of the four steps loads a 1
 *
 *     ./extra/reorder
 *     ./extra/reorder --fence
 *
 * mmap(2), fork(2), sched_setaffinity(2)
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
#include <time.h>
#include <unistd.h>

/* Each variable has a cache line of its own. */
struct page {
    _Alignas(128) volatile int x;
    _Alignas(128) volatile int y;
    _Alignas(128) volatile int r2;
    _Alignas(128) _Atomic long arrivals; /* calls of meet() */
};
static struct page *page;
static int fence; /* --fence: between the store and the load */

static int process_1(void);
static void process_2(void);
static void meet(void);

int main(int argc, char *argv[])
{
    fence = argc == 2 && strcmp(argv[1], "--fence") == 0;
    if (argc != 1 + fence) errx(2, "usage: reorder [--fence]");
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");

    /* Process 1 gets this core. Process 2 gets the others, if there are any. */
    static cpu_set_t one, others; /* empty */
    CPU_SET(sched_getcpu(), &one);
    if (sched_getaffinity(0, sizeof others, &others) == -1)
        err(1, "sched_getaffinity");
    CPU_XOR(&others, &others, &one);
    const int alone = CPU_COUNT(&others) == 0;

    const pid_t parent = getpid();
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (!alone && sched_setaffinity(0, sizeof one, child > 0 ? &one : &others))
        err(1, "sched_setaffinity");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
        if (getppid() != parent) exit(1);
        for (;;) process_2(); /* until the parent ends */
    }

    alarm(10); /* ends the parent if the child has been killed */
    long rounds = 0, both_0 = 0;
    const time_t end = time(NULL) + 2;
    while (time(NULL) < end) {
        if (process_1() == 0 && page->r2 == 0) both_0++;
        rounds++;
    }
    printf("%ld rounds, both load a 0 in %ld (%.2f%%)\n", rounds, both_0,
           100.0 * both_0 / rounds);
    if (alone)
        puts("There is only one core, and it sees its own stores in order.");
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* Volatile keeps the compiler from changing the order, but the core changes it.
   Its store waits in a buffer, invisible to the other core, while it loads.
   Peterson's lock begins like this, with x as "process 1 wants to enter". If
   both processes load a 0, both enter. */
static int process_1(void)
{
    page->y = 0;
    meet();
    /* Vary the start. Otherwise one process might always be late. */
    for (volatile long i = page->arrivals % 100; i > 0; i--) continue;
    page->x = 1;
    if (fence) atomic_thread_fence(memory_order_seq_cst);
    const int r1 = page->y;
    meet();
    return r1;
}

static void process_2(void)
{
    page->x = 0;
    meet();
    page->y = 1;
    if (fence) atomic_thread_fence(memory_order_seq_cst);
    page->r2 = page->x;
    meet();
}

/* Returns when both processes have called it. */
static void meet(void)
{
    static long both;
    both += 2;
    page->arrivals++;
    for (int spins = 1; page->arrivals < both; spins++)
        if (spins % 1000 == 0) sched_yield(); /* they might share a core */
}
