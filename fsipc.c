/* SPDX-License-Identifier: MIT */
/*
 * fsipc: processes count in one file at the same time, and lose increments.
 *
 *     process A     the file, mapped     process B
 *     load  7    <-------- 7 -------->   load  7
 *     add   8                            add   8
 *     store 8    --------> 8 <--------   store 8     8, and not 9
 *
 *     ./fsipc --jobs=2 --count=100000000 /tmp/counter.bin
 *
 * mmap(2), fork(2), flock(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static uint32_t times = 1000000000; /* the number of additions in a process */
static uint32_t jobs = 0;           /* the number of child processes */

static const char *path;
static volatile uint32_t *counter; /* the processes race here on purpose */
static void (*add)(void);

static pid_t fork_children(void);
static void report(long long expected);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    const int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd == -1) err(1, "%s", path);
    const off_t size = lseek(fd, 0, SEEK_END);
    if (size != 0 && size != 4) errx(1, "%s: not a file of 4 bytes", path);
    /* Without space on the disk, a store into the mapping raises SIGBUS. */
    const int error = posix_fallocate(fd, 0, 4);
    if (error != 0) errx(1, "%s: %s", path, strerror(error));
    counter = mmap(NULL, sizeof *counter, prot, flags, fd, 0);
    if (counter == MAP_FAILED) err(1, "%s: mmap", path);

    const long long expected = *counter + 1LL * jobs * times;
    if (expected > UINT32_MAX) errx(1, "4 bytes cannot hold %lld", expected);
    if (jobs > 0 && fork_children() > 0) {
        report(expected);
    } else {
        const uint32_t from = *counter;
        const clock_t start = clock();
        add();
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        printf("[%d] added %u times (%.2f ns each): from %u to %u\n", getpid(),
               times, 1e9 * seconds / times, from, *counter);
    }
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

/* The three lines race, even when -O2 makes one instruction of them. */
static void add_plainly(void)
{
    for (uint32_t i = 0; i < times; i++) {
        uint32_t value = *counter; /* load */
        value = value + 1;         /* add */
        *counter = value;          /* store */
    }
}

static void add_atomically(void)
{
    for (uint32_t i = 0; i < times; i++)
        atomic_fetch_add((_Atomic uint32_t *)counter, 1);
}

/* fork() shares an open file and its lock, so each process opens the file. */
static void add_locked(void)
{
    const int fd = open(path, O_RDWR);
    if (fd == -1) err(1, "%s", path);
    for (uint32_t i = 0; i < times; i++) {
        if (flock(fd, LOCK_EX) == -1) err(1, "%s: flock", path);
        *counter = *counter + 1;
        if (flock(fd, LOCK_UN) == -1) err(1, "%s: flock", path);
    }
}

/* Memory that is not shared needs no lock. */
static void add_batch(void)
{
    volatile uint32_t mine = 0;
    for (uint32_t i = 0; i < times; i++) mine = mine + 1;
    atomic_fetch_add((_Atomic uint32_t *)counter, mine);
}

/* Returns 0 in each child, as fork() does. */
static pid_t fork_children(void)
{
    const pid_t parent = getpid();
    pid_t child = 1;
    for (uint32_t i = 0; i < jobs && child > 0; i++) child = fork();
    if (child == -1) err(1, "fork");
    /* No child outlives the parent, whatever ends it. */
    if (child == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (child == 0 && getppid() != parent) exit(1);
    return child;
}

/* Waits for the children. Only the parent knows how often all of them add 1. */
static void report(long long expected)
{
    int status = 0;
    while (status == 0 && wait(&status) != -1) continue;
    if (WIFSIGNALED(status)) errx(1, "a child was killed");
    if (status != 0) exit(1); /* the child has printed the reason */
    const uint32_t actual = *counter;
    const long long lost = expected - actual;
    printf("[%d] expected %lld, actual %u, lost %lld (%.1f%%)\n", getpid(),
           expected, actual, lost, 100.0 * lost / times / jobs);
}

static const char usage[] =
    "usage: fsipc [--count=N] [--jobs=N] [--private]\n"
    "             [--sync=none|atomic|flock|batch] FILE";

static uint32_t parse_number(const char *text, uint32_t most)
{
    char *end;
    const long long number = strtoll(text, &end, 10);
    if (*end == '\0' && number >= 1 && number <= most) return number;
    errx(2, "%s: not a number from 1 to %u\n%s", text, most, usage);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"count", required_argument, NULL, 'c'},
        {"jobs", required_argument, NULL, 'j'},
        {"private", no_argument, &flags, MAP_PRIVATE},
        {"sync", required_argument, NULL, 's'},
        {0}};
    const char *sync = "none";
    for (int option = 0; option != -1;) {
        option = getopt_long_only(argc, argv, "", options, NULL);
        if (option == '?') errx(2, "%s", usage);
        if (option == 'c') times = parse_number(optarg, UINT32_MAX);
        if (option == 'j') jobs = parse_number(optarg, 1000);
        if (option == 's') sync = optarg;
    }
    if (strcmp(sync, "none") == 0) add = add_plainly;
    if (strcmp(sync, "atomic") == 0) add = add_atomically;
    if (strcmp(sync, "flock") == 0) add = add_locked;
    if (strcmp(sync, "batch") == 0) add = add_batch;
    if (add == NULL || argc != optind + 1) errx(2, "%s", usage);
    path = argv[optind];
}
