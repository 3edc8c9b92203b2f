/* SPDX-License-Identifier: MIT */
/*
 * fsipc: processes count in one file at the same time, and lose counts.
 *
 *     process A     the file, mapped     process B
 *     load  7    <-------- 7 -------->   load  7
 *     add   8                            add   8
 *     store 8    --------> 8 <--------   store 8     8, and not 9
 *
 *     ./fsipc --step /tmp/counter.bin
 *     ./fsipc --jobs=2 --count=100000000 /tmp/counter.bin
 *
 * mmap(2), fork(2), flock(2)
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
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
static int jobs = 0;       /* how many processes; 0: as the method wants */
static uint32_t times = 0; /* how often each adds 1; 0: as the method wants */

static const char *path;
static void (*count)(void *shared, uint32_t n); /* the method */
static int forced;      /* --step or --lowest forces the order */
static int me;          /* 1, 2, ... in those that count, 0 in their parent */
static volatile int fd; /* each that counts has its own; in handlers, too */
static uint32_t from;   /* what the counter said before */

static void count_plainly(void *shared, uint32_t n);
static void fail(const char *format, ...);
static void share_a_page(void);
static void open_counter(void);
static void start_processes(void);
static void open_again(void);
static void wait_for_start(void);
static void end_counting(const uint32_t *counter);
static void watch(void);
static void report(void);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static int on_terminal(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    share_a_page();
    open_counter();
    setvbuf(stdout, NULL, _IOLBF, 0); /* the lines of all, in order */
    printf("[%d] %d x %u, from %u\n", getpid(), jobs, times, from);
    flush_stdout();

    /* After this call there are several of us: the parent, which is 0, and
       those that count, which are 1, 2, ... */
    start_processes();
    if (me == 0) {
        watch();
        report();
        return 0;
    }

    /* Each opens and maps the file for itself, as strangers would. Now *counter
       is the file: to load it reads the file, to store it writes the file. */
    open_again();
    uint32_t *counter = mmap(NULL, sizeof *counter, prot, flags, fd, 0);
    if (counter == MAP_FAILED) fail("%s: mmap: %s", path, strerror(errno));
    wait_for_start();
    count(counter, times); /* count_plainly(), or as --sync says */
    end_counting(counter);
}

/* The race. Volatile: load and store each time, and not n at once. A compiler
   that optimises may still make one instruction of the three lines. */
static void count_plainly(void *shared, uint32_t n)
{
    volatile uint32_t *counter = shared;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t value = *counter; /* load */
        value = value + 1;         /* add */
        *counter = value;          /* store */
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
        if (flock(fd, LOCK_EX) == -1) fail("flock: %s", strerror(errno));
        count_plainly(shared, 1);
        if (flock(fd, LOCK_UN) == -1) fail("flock: %s", strerror(errno));
    }
}

static void count_in_a_batch(void *shared, uint32_t n)
{
    volatile uint32_t mine = 0; /* or the compiler would not count at all */
    for (uint32_t i = 0; i < n; i++) mine = mine + 1;
    atomic_fetch_add((_Atomic uint32_t *)shared, mine);
}

/* What the processes share besides the file: a page of memory. */
struct page {
    _Atomic int ready, started, counted; /* how many are; started is 0 or 1 */
    _Atomic int turn;   /* whose it is, if the order is forced */
    _Atomic int spoken; /* one has said what failed */
    double start, end;  /* of the counting, in nanoseconds */
    /* Peterson's lock, in cache lines of their own; books say flag and turn. */
    _Alignas(128) volatile int first;
    struct {
        _Alignas(128) volatile int wanted;
    } entry[3];
};
static struct page *page;

/* Peterson's lock for two, made of plain variables: I want to enter, but you
   go first. */
static void ask(void)
{
    page->entry[me].wanted = 1;
    atomic_thread_fence(memory_order_release); /* no instruction on x86 */
    page->first = 3 - me;
}

/* The other may need this core to go on. */
static void wait_to_enter(void)
{
    const int other = 3 - me;
    unsigned spins = 0;
    while (page->entry[other].wanted && page->first == other) {
        spins++;
        if (spins % 1000 == 0) usleep(1);
    }
    atomic_thread_fence(memory_order_acquire); /* no instruction on x86 */
}

static void leave(void)
{
    atomic_thread_fence(memory_order_release); /* no instruction on x86 */
    page->entry[me].wanted = 0;
}

/* Without a pause they would enter strictly in turn, and never ask together. */
static void do_something_else(void)
{
    volatile int moments = rand() % 200;
    while (moments > 0) moments = moments - 1;
}

/* Right on paper. But a core keeps its stores to itself for a while, and loads
   what comes next: both do not see yet that the other asks, and both enter. */
static void count_like_peterson(void *shared, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ask();
        wait_to_enter();
        count_plainly(shared, 1);
        leave();
        do_something_else();
    }
}

/* No load goes past the fence before all can see the stores above it. */
static void count_with_a_fence(void *shared, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ask();
        atomic_thread_fence(memory_order_seq_cst);
        wait_to_enter();
        count_plainly(shared, 1);
        leave();
        do_something_else();
    }
}

/* The race in slow motion, by two that take turns, each in its own column. */
static void take_turn(void)
{
    while (page->turn != me) usleep(1);
}

static void pass_turn(const char *what, uint32_t value)
{
    const int printed = printf("%*s%s %u\n", 36 * (me - 1), "", what, value);
    if (printed < 0) fail("stdout: %s", strerror(errno));
    page->turn = 3 - me;
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

/* The worst that can happen. 1 loads 0; 2 counts n - 1 times; 1 stores 1: all
   that 2 has done is undone. 2 loads 1; 1 counts n - 1 times; 2 stores 2: all
   that 1 has done is undone. */
static void count_lowest(void *shared, uint32_t n)
{
    volatile uint32_t *counter = shared;
    char all_but_one[60];
    sprintf(all_but_one, "load, add, store, %u times:", n - 1);
    if (me == 2) {
        take_turn();
        count_plainly(shared, n - 1);
        pass_turn(all_but_one, *counter);
    }
    take_turn();
    const uint32_t value = *counter;
    pass_turn("load ", value);
    take_turn();
    *counter = value + 1;
    pass_turn("store", *counter);
    if (me == 1) {
        take_turn();
        count_plainly(shared, n - 1);
        pass_turn(all_but_one, *counter);
    }
}

/* Of all that fail one speaks, or their lines would run into each other. The
   others let it finish; then the parent ends, and all with it. */
static int take_the_word(void)
{
    const int is_first = atomic_exchange(&page->spoken, 1) == 0;
    if (!is_first) sleep(1);
    return is_first;
}

/* Like errx(), but of all processes only one speaks. */
static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int may_speak = take_the_word();
    if (may_speak) vwarnx(format, arguments);
    va_end(arguments);
    exit(1);
}

/* What is ready before they start: the page, and the file. */

static void share_a_page(void)
{
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) err(1, "mmap");
    page->turn = 1;
}

static int is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Somebody may have removed it, or put another one in its place. */
static int has_its_name(void)
{
    struct stat opened, named;
    if (fstat(fd, &opened) == -1) return 0;
    if (stat(path, &named) == -1) return 0;
    return is_same_file(&opened, &named);
}

/* How the file was. It becomes so again if they never come to count. */
static volatile enum { COUNTER, EMPTY, ABSENT } found;

static void restore_file(void)
{
    int failed = 0;
    if (found == ABSENT && has_its_name()) failed = unlink(path);
    if (found == EMPTY) failed = ftruncate(fd, 0);
    if (!failed) found = COUNTER;
}

static void end_by_signal(int number)
{
    restore_file();
    raise(number);
}

/* A new file is ours, unless another one was faster to lock it, or to count. */
static void own_new_file(void)
{
    struct stat status;
    if (lockf(fd, F_TLOCK, 0) == -1) return;
    if (fstat(fd, &status) == -1) return;
    if (status.st_size == 0) found = ABSENT;
}

/* Signals wait until it is known whether the file is new, and ours. */
static void open_or_create(void)
{
    sigset_t all, usual;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &usual);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd != -1) own_new_file();
    if (fd == -1 && errno == EEXIST)
        fd = open(path, O_RDWR | O_NONBLOCK); /* and do not wait at a FIFO */
    sigprocmask(SIG_SETMASK, &usual, NULL);
}

/* Returns 0 if the file was removed meanwhile. */
static int open_and_lock(void)
{
    struct stat status;
    open_or_create();
    if (fd == -1 && errno == ENOENT) return 0;
    if (fd == -1) err(1, "%s", path);
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    if (!S_ISREG(status.st_mode)) errx(1, "%s: not a file of 4 bytes", path);
    if (lockf(fd, F_LOCK, 0) == -1) err(1, "%s: lockf", path);
    if (has_its_name()) return 1;
    found = COUNTER;
    close(fd);
    return 0;
}

/* Otherwise a full disk would be SIGBUS, at the first store. */
static void reserve_bytes(void)
{
    if (found != ABSENT) found = EMPTY;
    const int error = posix_fallocate(fd, 0, 4);
    if (error != 0) errx(1, "%s: %s", path, strerror(error));
}

/* Sees the stores into the mapping: it is the same page of the page cache. */
static uint32_t read_counter(void)
{
    uint32_t value;
    const ssize_t got = pread(fd, &value, sizeof value, 0);
    if (got == -1) fail("%s: %s", path, strerror(errno));
    if (got < (ssize_t)sizeof value) fail("%s: was truncated", path);
    return value;
}

/* Of several that come at once, one creates the file; the others wait for its
   lock until it counts. If it fails it removes the file, and they try again. */
static void open_counter(void)
{
    struct stat status;
    atexit(restore_file);
    catch_signals(end_by_signal);
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size is an error, too */
    int opened = 0;
    for (int tries = 0; !opened && tries < 100; tries++)
        opened = open_and_lock();
    if (!opened) err(1, "%s", path);
    if (fstat(fd, &status) == -1) err(1, "%s", path);
    const off_t size = status.st_size;
    if (size != 0) found = COUNTER;
    if (size != 0 && size != 4) errx(1, "%s: not a file of 4 bytes", path);
    if (size == 0) reserve_bytes();

    from = read_counter();
    const uintmax_t expected = from + (uintmax_t)jobs * times;
    if (expected > UINT32_MAX) errx(1, "%s: no room for %ju", path, expected);
}

/* They count: it is everybody's file from now on. */
static void keep_file(void)
{
    if (lockf(fd, F_ULOCK, 0) == -1)
        fail("%s: lockf: %s", path, strerror(errno));
    found = COUNTER;
}

/* What each process does, from its start to its end. */

static pid_t children[1000];

/* Returns in each child, which then has a number, and in the parent. */
static void start_processes(void)
{
    const pid_t parent = getpid();
    signal(SIGCHLD, SIG_DFL); /* ignored, it would hide how a child ended */
    for (int i = 0; i < jobs; i++) {
        children[i] = fork();
        if (children[i] == -1) fail("fork: %s", strerror(errno));
        if (children[i] > 0) continue;
        found = COUNTER; /* the file is the parent's care */
        me = i + 1;
        const int failed = prctl(PR_SET_PDEATHSIG, SIGKILL); /* ends with it */
        if (failed) fail("prctl: %s", strerror(errno));
        if (getppid() != parent) exit(1);
        return;
    }
}

/* Its own, which must be the one that its parent has. */
static void open_again(void)
{
    struct stat parents, own;
    if (fstat(fd, &parents) == -1) fail("%s: %s", path, strerror(errno));
    fd = open(path, O_RDWR);
    if (fd == -1) fail("%s: %s", path, strerror(errno));
    if (fstat(fd, &own) == -1) fail("%s: %s", path, strerror(errno));
    if (!is_same_file(&own, &parents)) fail("%s: is another file now", path);
}

/* Somebody else has made the file shorter, or there is no space for it. */
static void explain_fault(int number)
{
    struct stat status;
    const char *reason = "the disk is full, or fails";
    signal(number, SIG_DFL); /* the instruction runs again, and then kills */
    const int unknown = fstat(fd, &status) == -1;
    if (unknown || status.st_size < 4) reason = "beyond the end of the file";
    const int may_speak = take_the_word();
    if (may_speak) warnx("%s: SIGBUS, %s", path, reason);
}

static double now(void)
{
    struct timespec time;
    const int failed = clock_gettime(CLOCK_MONOTONIC, &time);
    if (failed) fail("clock_gettime: %s", strerror(errno));
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void wait_for_start(void)
{
    signal(SIGBUS, explain_fault);
    atomic_fetch_add(&page->ready, 1);
    while (page->started == 0) usleep(1);
}

/* The clock stops when the last has counted. */
static void end_counting(const uint32_t *counter)
{
    const int before = atomic_fetch_add(&page->counted, 1);
    if (before + 1 == jobs) page->end = now();
    int printed = 0;
    if (flags == MAP_PRIVATE)
        printed = printf("[%d] in my own copy: %u\n", getpid(), *counter);
    if (printed < 0) fail("stdout: %s", strerror(errno));
}

/* What the parent does: it starts the clock when all have mapped the file, and
   shows the counter on a terminal. */

static int others; /* somebody else counts in the file, too */

/* Returns 1 if one has ended well. */
static int one_has_ended(int options)
{
    int status, number = 0;
    const pid_t child = waitpid(-1, &status, options);
    if (child == -1) fail("waitpid: %s", strerror(errno));
    while (number < jobs && children[number] != child) number++;
    if (child == 0 || number == jobs) return 0; /* none, or not one of ours */
    if (WIFSIGNALED(status) && page->spoken == 0)
        fail("process %d: %s", child, strsignal(WTERMSIG(status)));
    if (status != 0) exit(1); /* one has said why */
    return 1;
}

static void watch(void)
{
    int running = jobs;
    while (page->ready < jobs) {
        one_has_ended(WNOHANG);
        usleep(100);
    }
    others = read_counter() != from;
    keep_file();
    page->start = now();
    page->started = 1;
    while (running > 0) {
        const int moves = !forced && flags == MAP_SHARED;
        const int live = moves && on_terminal();
        const int ended = one_has_ended(live ? WNOHANG : 0);
        running -= ended;
        if (ended || !live) continue;
        printf("\r%10u\r", read_counter());
        fflush(stdout);
        usleep(2000);
    }
}

static int has_one_core(void)
{
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == -1) return 0;
    return CPU_COUNT(&cores) == 1;
}

/* Who counts alone knows how often it has added, and no more: what is lost can
   be known only of all that count in the file. What is short is not timed, for
   that would be the time of the start. */
static void report(void)
{
    const uint32_t to = read_counter();
    const double total = (double)jobs * times;
    const double lost = from + total - to;
    const double ns = page->end - page->start;
    const int enough = total >= 10000 && ns > 1e6;
    const int measured = enough && !forced && flags == MAP_SHARED;
    const int still_moves = read_counter() != to;
    if (lost < 0 || still_moves) others = 1;

    if (flags == MAP_PRIVATE)
        printf("[%d] in the file: %u\n", getpid(), to);
    else if (jobs == 1 || others)
        printf("[%d] added %.0f times: the counter went from %u to %u\n",
               getpid(), total, from, to);
    else
        printf("[%d] expected %.0f, actual %u, lost %.0f (%.1f%%)\n", getpid(),
               from + total, to, lost, 100 * lost / total);
    if (jobs > 1 && others)
        printf("[%d] others count, too: what is lost is not known\n", getpid());
    if (measured) printf("[%d] %.2f ns per increment\n", getpid(), ns / total);
    if (count == count_like_peterson && has_one_core())
        printf("[%d] one core sees its own stores in order\n", getpid());

    const int unwritten = fflush(stdout) == EOF || ferror(stdout);
    if (unwritten) err(1, "%s: has been counted in, but stdout", path);
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: fsipc [OPTION]... FILE\n"
         "Let processes add 1 to the 4 bytes of FILE, again and again.\n"
         "  --jobs=N     so many processes (1)\n"
         "  --count=N    each adds so often (1000000000, less if it is slow)\n"
         "  --sync=none  load, add, store: the race\n"
         "        =atomic, flock, batch      lose nothing\n"
         "        =peterson, fenced          a lock for two, without and with\n"
         "                                   the fence that it needs\n"
         "  --private    use MAP_PRIVATE: the file keeps its value\n"
         "  --step       two add 1 once, in the order that loses one\n"
         "  --lowest     two add --count=N (1000), in the order that leaves 2\n"
         "What is lost is true only if nobody else counts in FILE.\n"
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

/* How often, and by how many processes, if the options do not say. */
enum { NONE, ATOMIC, FLOCK, BATCH, PETERSON, FENCED, STEP, LOWEST };
static const struct method {
    const char *name;
    void (*count)(void *shared, uint32_t n);
    uint32_t times;
    int jobs;
} methods[] = {
    [NONE] = {"none", count_plainly, 1000000000, 1},
    [ATOMIC] = {"atomic", count_atomically, 1000000000, 1},
    [FLOCK] = {"flock", count_locked, 1000000, 1},
    [BATCH] = {"batch", count_in_a_batch, 1000000000, 1},
    [PETERSON] = {"peterson", count_like_peterson, 200000, 2},
    [FENCED] = {"fenced", count_with_a_fence, 200000, 2},
    [STEP] = {"--step", count_in_turns, 1, 2},
    [LOWEST] = {"--lowest", count_lowest, 1000, 2},
};

static int parse_sync(const char *name)
{
    for (int i = NONE; i < STEP; i++)
        if (strcmp(name, methods[i].name) == 0) return i;
    errx(2, "--sync=%s: not none, atomic, flock, batch, peterson or fenced",
         name);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"count", 1, NULL, 'c'},
                                     {"help", 0, NULL, 'h'},
                                     {"jobs", 1, NULL, 'j'},
                                     {"lowest", 0, &forced, LOWEST},
                                     {"private", 0, &flags, MAP_PRIVATE},
                                     {"step", 0, &forced, STEP},
                                     {"sync", 1, NULL, 's'},
                                     {NULL, 0, NULL, 0}};
    int option, sync = NONE;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'c': times = parse_number(optarg, 1, UINT32_MAX); break;
        case 'h': usage(); break;
        case 'j': jobs = parse_number(optarg, 1, 1000); break;
        case 's': sync = parse_sync(optarg); break;
        case '?': exit(2);
        }
    if (argc != optind + 1) errx(2, "want one FILE; try --help");
    path = argv[optind];

    const struct method *method = &methods[forced ? forced : sync];
    count = method->count;
    if (forced) jobs = 2;
    if (forced == STEP) times = 1;
    if (jobs == 0) jobs = method->jobs;
    if (times == 0) times = method->times;
    if (method->jobs == 2 && jobs != 2)
        errx(2, "--sync=%s: only with --jobs=2", method->name);
    if (forced == LOWEST && times < 2) errx(2, "--lowest: not with --count=1");
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

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
