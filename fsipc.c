/* SPDX-License-Identifier: MIT */
/*
 * fsipc: processes share a counter in a file, and lose counts. mmap(2)
 *
 *     process A     the file, mapped     process B
 *     load  7    <-------- 7 -------->   load  7
 *     add   8                            add   8
 *     store 8    --------> 8 <--------   store 8     8, and not 9
 *
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

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int jobs = 1;   /* so many processes */
static uint32_t times; /* each adds 1 so often */
static int step;       /* two of them once, in the fatal order */

static const char *path;
static const char *new_file; /* is removed, if they never come to count */
static int fd;               /* this process's own */
static int me;               /* the first process is 1 */
static _Atomic int *turn;    /* 0 until the start, then whose it is */
static void (*count)(void *shared, uint32_t n);

static void start_process(int number);
static void wait_for_all(const volatile uint32_t *counter);
static void report(uint32_t actual, uintmax_t expected, double ns);
static double now(void);
static int open_counter(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static int on_terminal(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    fd = open_counter();
    const volatile uint32_t *counter =
        mmap(NULL, sizeof *counter, PROT_READ, MAP_SHARED, fd, 0);
    if (counter == MAP_FAILED) err(1, "%s", path);
    const uintmax_t expected = *counter + (uintmax_t)jobs * times;
    if (expected > UINT32_MAX) errx(1, "%s: no room for %ju", path, expected);

    turn = mmap(NULL, sizeof *turn, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED) err(1, "mmap");
    setvbuf(stdout, NULL, _IOLBF, 0); /* the lines of all, in order */
    printf("[%d] %d x %u, from %u\n", getpid(), jobs, times, *counter);
    flush_stdout();
    for (int i = 1; i <= jobs; i++) start_process(i);
    new_file = NULL;

    const double start = now();
    *turn = 1;
    wait_for_all(counter);
    report(*counter, expected, now() - start);
    flush_stdout();
}

/* It opens the file for itself, as strangers would, and maps it. */
static void start_process(int number)
{
    const pid_t parent = getpid(), child = fork();
    if (child == -1) err(1, "fork");
    if (child > 0) return;

    new_file = NULL;
    me = number;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* it ends with its parent */
    if (getppid() != parent) exit(1);
    fd = open(path, O_RDWR);
    if (fd == -1) err(1, "%s", path);
    uint32_t *counter = mmap(NULL, sizeof *counter, prot, flags, fd, 0);
    if (counter == MAP_FAILED) err(1, "%s", path);
    while (*turn == 0) usleep(1);
    count(counter, times);
    if (flags == MAP_PRIVATE) printf("in my own copy: %u\n", *counter);
    exit(0);
}

/* The race. Volatile keeps the compiler from making it a single addition. */
static void count_plainly(void *shared, uint32_t n)
{
    volatile uint32_t *counter = shared;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t value = *counter;
        value = value + 1;
        *counter = value;
    }
}

static void count_atomically(void *shared, uint32_t n)
{
    _Atomic uint32_t *counter = shared;
    for (uint32_t i = 0; i < n; i++) atomic_fetch_add(counter, 1);
}

/* The lock belongs to the open file: each process must have its own. */
static void count_locked(void *shared, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (flock(fd, LOCK_EX) == -1) err(1, "flock");
        count_plainly(shared, 1);
        if (flock(fd, LOCK_UN) == -1) err(1, "flock");
    }
}

static void count_in_a_batch(void *shared, uint32_t n)
{
    volatile uint32_t mine = 0; /* or the compiler would not count at all */
    for (uint32_t i = 0; i < n; i++) mine = mine + 1;
    atomic_fetch_add((_Atomic uint32_t *)shared, mine);
}

/* The race again, by two that take turns after every instruction. */
static void take_turn(void)
{
    while (*turn != me) usleep(1);
}

static void pass_turn(const char *instruction, uint32_t value)
{
    printf("%*s%s %u\n", 30 * (me - 1), "", instruction, value);
    *turn = 3 - me;
}

static void count_in_turns(void *shared, uint32_t n)
{
    volatile uint32_t *counter = shared;
    for (uint32_t i = 0; i < n; i++) {
        take_turn();
        uint32_t value = *counter;
        pass_turn("load ", value);
        take_turn();
        value = value + 1;
        pass_turn("add  ", value);
        take_turn();
        *counter = value;
        pass_turn("store", value);
    }
}

/* On a terminal, the counter is shown meanwhile. */
static void wait_for_all(const volatile uint32_t *counter)
{
    const int live = !step && on_terminal();
    int running = jobs;
    while (running > 0) {
        int status;
        const pid_t child = waitpid(-1, &status, live ? WNOHANG : 0);
        if (child == -1) err(1, "waitpid");
        if (child == 0) { /* none has ended */
            printf("\r%10u\r", *counter);
            fflush(stdout);
            usleep(2000);
            continue;
        }
        if (status != 0) errx(1, "process %d: failed", child);
        running--;
    }
}

static void report(uint32_t actual, uintmax_t expected, double ns)
{
    const double total = (double)jobs * times;
    const double lost = (double)expected - actual;
    printf("[%d] expected %ju, actual %u", getpid(), expected, actual);
    if (lost < 0)
        printf(": others have counted, too\n");
    else
        printf(", lost %.0f (%.1f%%)\n", lost, 100 * lost / total);
    if (!step) printf("[%d] %.2f ns per increment\n", getpid(), ns / total);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void remove_new_file(void)
{
    if (new_file) unlink(new_file);
}

/* Of several that come at once, one creates the file. Its bytes are reserved:
   a full disk is an error here, and not SIGBUS later. */
static int open_counter(void)
{
    struct stat status;
    int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file != -1) {
        new_file = path;
        atexit(remove_new_file);
    } else if (errno == EEXIST) {
        file = open(path, O_RDWR | O_NONBLOCK); /* and do not wait at a FIFO */
    }
    if (file == -1) err(1, "%s", path);
    if (fstat(file, &status) == -1) err(1, "%s", path);
    const off_t size = status.st_size;
    if (!S_ISREG(status.st_mode) || (size != 0 && size != 4))
        errx(1, "%s: not a file of 4 bytes", path);
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error, too */
    errno = posix_fallocate(file, 0, 4);
    if (errno != 0) err(1, "%s", path);
    return file;
}

/* The rest is alike in every program: options, and streams that are checked. */

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

static long long parse_number(const char *text, long long least, long long most)
{
    const long long number = strtoll(text, NULL, 10);
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0')
        errx(2, "%s: not a number", text);
    if (number < least || number > most)
        errx(2, "%s: not from %lld to %lld", text, least, most);
    return number;
}

static void parse_sync(const char *name)
{
    if (strcmp(name, "none") == 0)
        count = count_plainly;
    else if (strcmp(name, "atomic") == 0)
        count = count_atomically;
    else if (strcmp(name, "flock") == 0)
        count = count_locked;
    else if (strcmp(name, "batch") == 0)
        count = count_in_a_batch;
    else
        errx(2, "--sync=%s: not none, atomic, flock or batch", name);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {
        {"count", 1, NULL, 'c'}, {"help", 0, NULL, 'h'},
        {"jobs", 1, NULL, 'j'},  {"private", 0, &flags, MAP_PRIVATE},
        {"step", 0, &step, 1},   {"sync", 1, NULL, 's'},
        {NULL, 0, NULL, 0}};
    int option;
    parse_sync("none");
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'c': times = parse_number(optarg, 1, UINT32_MAX); break;
        case 'h': usage(); break;
        case 'j': jobs = parse_number(optarg, 1, 1000); break;
        case 's': parse_sync(optarg); break;
        case '?': exit(2);
        }
    if (argc != optind + 1) errx(2, "want one FILE; try --help");
    path = argv[optind];
    if (times == 0) times = count == count_locked ? 1000000 : 1000000000;
    if (step) {
        count = count_in_turns;
        jobs = 2;
        times = 1;
    }
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* A process in the background would draw over the shell. */
static int on_terminal(void)
{
    return tcgetpgrp(STDOUT_FILENO) == getpgrp();
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
