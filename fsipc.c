/* SPDX-License-Identifier: MIT */
/*
 * fsipc: processes share a counter in a file, and lose counts. mmap(2)
 *
 *     process A     the file, mapped     process B
 *     load  7    <-------- 7 -------->   load  7
 *     add   8                            add   8
 *     store 8    --------> 8 <--------   store 8     8, and not 9
 *     ./fsipc --step /tmp/counter.bin
 *     ./fsipc --jobs=2 --count=10000000 /tmp/counter.bin
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int prot = PROT_READ | PROT_WRITE;
static int fd, created, me; /* own file, whether it is new, number from 1 */
static _Atomic int *turn;   /* shared: 0 before the start, then whose it is */

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}

static void usage(void)
{
    puts("usage: fsipc [--sync=none|atomic|flock|batch] [--jobs=N]\n"
         "             [--count=N] [--private] [--step] FILE\n"
         "Let --jobs processes (1) each add 1 to the 4 bytes of FILE --count\n"
         "(10^9, flock 10^6) times. --private spares FILE, --step loses one.\n"
         "example: fsipc --jobs=2 --sync=atomic /tmp/counter.bin");
    flush_stdout();
    exit(0);
}

/* With stdout closed, open() would return 1: printf() would fill the file. */
static void guard_streams(void)
{
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) == -1 && open("/dev/null", O_RDWR) != 0)
            errx(1, "stdout or stderr: closed");
}

static uint32_t parse_number(const char *text, uint32_t most)
{
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || number < 1 || number > most)
        errx(2, "%s: not a number from 1 to %u", text, most);
    return number;
}

/* The race. Volatile keeps the compiler from making it a single addition. */
static void count_plainly(void *shared, uint32_t times)
{
    for (volatile uint32_t *counter = shared; times > 0; times--) {
        uint32_t value = *counter;
        value = value + 1;
        *counter = value;
    }
}

static void count_atomically(void *shared, uint32_t times)
{
    for (_Atomic uint32_t *counter = shared; times > 0; times--)
        atomic_fetch_add(counter, 1);
}

/* The lock belongs to the open file: each process must have its own. */
static void count_locked(void *shared, uint32_t times)
{
    for (; times > 0; times--) {
        if (flock(fd, LOCK_EX) == -1) err(1, "flock");
        count_plainly(shared, 1);
        if (flock(fd, LOCK_UN) == -1) err(1, "flock");
    }
}

static void count_in_a_batch(void *shared, uint32_t times)
{
    volatile uint32_t mine = 0; /* or the compiler would not count at all */
    for (; times > 0; times--) mine = mine + 1;
    atomic_fetch_add((_Atomic uint32_t *)shared, mine);
}

/* The race once, by two processes that take turns after every instruction. */
static void count_in_turns(void *shared, uint32_t times)
{
    static const char *const steps[] = {"load ", "add  ", "store"};
    volatile uint32_t *counter = shared, value = 0;
    for (uint32_t i = 0; i < 3 * times; i++) {
        while (*turn != me) usleep(1);
        if (i % 3 == 0) value = *counter;
        if (i % 3 == 1) value = value + 1;
        if (i % 3 == 2) *counter = value;
        printf("%*s%s %u\n", 30 * (me - 1), "", steps[i % 3], value);
        *turn = 3 - me;
    }
}

typedef void counting(void *shared, uint32_t times);
static const struct method {
    const char *name;
    counting *count;
} methods[] = {{"none", count_plainly},
               {"atomic", count_atomically},
               {"flock", count_locked},
               {"batch", count_in_a_batch},
               {NULL, NULL}};

static void *map_counter(const char *path, int flags)
{
    struct stat status;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    created = fd != -1;
    if (fd == -1 && errno == EEXIST)
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd == -1 || fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode) || (status.st_size & ~4) != 0)
        errx(1, "%s: not a file of 4 bytes", path);
    signal(SIGXFSZ, SIG_IGN);
    errno = posix_fallocate(fd, 0, 4);
    if (errno != 0 && created) unlink(path);
    if (errno != 0) err(1, "%s", path);
    void *counter = mmap(NULL, 4, prot, flags, fd, 0);
    if (counter == MAP_FAILED) err(1, "%s", path);
    return counter;
}

/* A process that ends with its parent: it opens, maps, waits and counts. */
static void start(const char *path, int flags, uint32_t times, counting *count)
{
    pid_t parent = getpid(), child = fork();
    if (child == -1 && created) unlink(path);
    if (child == -1) err(1, "fork");
    if (child > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) exit(1);
    uint32_t *counter = map_counter(path, flags);
    while (*turn == 0) usleep(1);
    count(counter, times);
    if (flags == MAP_PRIVATE) printf("in my own copy: %u\n", *counter);
    exit(0);
}

static void wait_for(int jobs, volatile uint32_t *counter, int live)
{
    for (int status = 0; jobs > 0;) {
        pid_t child = waitpid(-1, &status, live ? WNOHANG : 0);
        if (child == -1 || status != 0) errx(1, "process %d: failed", child);
        if (child > 0) jobs--;
        if (live) printf("\r%10u\r", *counter), fflush(stdout), usleep(2000);
    }
}

int main(int argc, char *argv[])
{
    int flags = MAP_SHARED, jobs = 1, step = 0, option;
    uint32_t times = 0;
    const char *sync = "none";
    const struct method *method = methods;
    const struct option options[] = {
        {"count", 1, NULL, 'c'}, {"help", 0, NULL, 'h'},
        {"jobs", 1, NULL, 'j'},  {"private", 0, &flags, MAP_PRIVATE},
        {"step", 0, &step, 1},   {"sync", 1, NULL, 's'},
        {NULL, 0, NULL, 0}};
    guard_streams();
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c') times = parse_number(optarg, UINT32_MAX);
        if (option == 'h') usage();
        if (option == 'j') jobs = parse_number(optarg, 1000);
        if (option == 's') sync = optarg;
        if (option == '?') return 2;
    }
    const char *path = argv[optind];
    while (method->name && strcmp(method->name, sync) != 0) method++;
    if (argc != optind + 1 || !method->name) errx(2, "usage: try --help");
    if (times == 0) times = method->count == count_locked ? 1e6 : 1e9;
    if (step) jobs = 2, times = 1;
    const uintmax_t total = (uintmax_t)jobs * times;
    if (total > UINT32_MAX) errx(2, "%s: 4 bytes cannot hold %ju", path, total);
    volatile uint32_t *counter = map_counter(path, MAP_SHARED);
    const uintmax_t expected = *counter + total;
    if (expected > UINT32_MAX) errx(1, "%s: no room for %ju", path, expected);
    turn = mmap(NULL, sizeof *turn, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED) err(1, "mmap");
    const int live = !step && tcgetpgrp(STDOUT_FILENO) == getpgrp();
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("[%d] %d x %u, from %u\n", getpid(), jobs, times, *counter);
    if (ferror(stdout) && (!created || unlink(path) == 0)) err(1, "stdout");
    for (me = 1; me <= jobs; me++)
        start(path, flags, times, step ? count_in_turns : method->count);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    *turn = 1;
    wait_for(jobs, counter, live);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec;
    const double lost = (double)expected - *counter;
    printf("[%d] expected %ju, actual %u", getpid(), expected, *counter);
    if (lost < 0) printf(": others have counted, too\n");
    if (lost >= 0) printf(", lost %.0f (%.1f%%)\n", lost, 100 * lost / total);
    if (!step) printf("[%d] %.2f ns per increment\n", getpid(), ns / total);
    flush_stdout();
}
