/* SPDX-License-Identifier: MIT */
/*
 * ipc: what a message from one process to another costs, by each means.
 *
 *     parent               kernel              child
 *     message ---copy---> a buffer ---copy---> message    pipe, socketpair
 *     message ---copy---------------> a slot that both map, shared memory
 *
 *     ./bench/ipc
 *     taskset -c 0 ./bench/ipc
 *
 * A line is a measurement, with tabs: table, row, value, unit; "# " a comment.
 * pipe(7), unix(7), sem_overview(7), sched(7)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED | MAP_ANONYMOUS;
static int runs = 5;
static int milliseconds = 50; /* for each row */

/* A message is a word, or a piece of so many bytes; after a lap of messages the
   clock is read. The slots are few, so that the cache can hold them. */
typedef unsigned long word;
enum { piece = 64 << 10, words = piece / sizeof(word), lap = 64, slots = 4 };

enum { spinning, copying, semaphore, pipes, sockets, all_means };
static const struct row {
    const char *name;
    int means;
    int size;  /* of a message, in bytes */
    int burst; /* so many messages have one answer; 0: no child takes part */
} rows[] = {{"shared memory, spinning", spinning, sizeof(word), 1},
            {"shared memory, semaphore", semaphore, sizeof(word), 1},
            {"pipe", pipes, sizeof(word), 1},
            {"socketpair", sockets, sizeof(word), 1},
            {"memcpy in cache", spinning, piece, 0},
            {"ring, left in its slot", spinning, piece, lap},
            {"ring, copied out of it", copying, piece, lap},
            {"pipe", pipes, piece, lap},
            {"socketpair", sockets, piece, lap}};

/* One way. The sender counts what is sent, the receiver what is received and
   freed: in one cache line they would keep taking it from each other. */
static struct way {
    _Alignas(64) _Atomic word sent;
    _Alignas(64) _Atomic word freed;
    word received;
    _Alignas(64) char slot[slots][piece];
    sem_t posted;
    int ends[2]; /* to read from, to write to */
} (*way)[2];     /* there and back, for each means */

static word message[words];             /* what is sent, and must arrive */
static cpu_set_t our_core, other_cores; /* of the parent, and of the child */
static int pinned;                      /* each has cores of its own */
static int one_core;                    /* both have the same */

static void choose_cores(void);
static void open_ways(void);
static void measure(const struct row *row);
static void answer(const struct row *row);
static double exchange(const struct row *row);
static void put(const struct row *row, struct way *to, int size, word number);
static void take(const struct row *row, struct way *from, int size,
                 word number);
static void watch_child(int number);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line when it is measured */

    way = mmap(NULL, all_means * sizeof *way, prot, flags, -1, 0);
    if (way == MAP_FAILED) err(1, "mmap");
    open_ways();
    choose_cores();
    for (int i = 0; i < words; i++) message[i] = i * 2654435761;

    const size_t all_rows = sizeof rows / sizeof *rows;
    for (int run = 0; run < runs; run++)
        for (size_t i = 0; i < all_rows; i++) measure(&rows[i]);
    flush_stdout();
}

static void open_ways(void)
{
    for (int i = 0; i < 2; i++) {
        if (sem_init(&way[semaphore][i].posted, 1, 0) == -1) err(1, "sem_init");
        if (pipe(way[pipes][i].ends) == -1) err(1, "pipe");
        /* As much as the ring has, if that is allowed. */
        fcntl(way[pipes][i].ends[1], F_SETPIPE_SZ, slots * piece);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, way[sockets][i].ends) == -1)
            err(1, "socketpair");
    }
}

/* Else both may be put on one core, where pipes are fast and rings slow. */
static void choose_cores(void)
{
    const int core = sched_getcpu();
    if (core == -1) err(1, "sched_getcpu");
    CPU_SET(core, &our_core);
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == -1)
        err(1, "sched_getaffinity");

    CPU_XOR(&other_cores, &allowed, &our_core);
    one_core = CPU_COUNT(&other_cores) == 0;
    pinned = sched_setaffinity(0, sizeof our_core, &our_core) == 0;
    if (!pinned)
        printf("# cores: the system chooses them: %s\n", strerror(errno));
    else if (one_core)
        puts("# one core: they take turns");
    else
        puts("# two cores");
    if (one_core) other_cores = our_core;
    flush_stdout();
}

static void measure(const struct row *row)
{
    signal(SIGCHLD, watch_child);
    const pid_t parent = getpid(), child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
        if (getppid() != parent) exit(1);
        int failed = 0;
        if (pinned)
            failed = sched_setaffinity(0, sizeof other_cores, &other_cores);
        if (failed) err(1, "sched_setaffinity");
        answer(row);
    }

    const double seconds = exchange(row);
    signal(SIGCHLD, SIG_DFL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    if (row->size == piece)
        printf("throughput in pieces of 64 KiB\t%s\t%.4f\tGB/s\n", row->name,
               piece / seconds / 1e9);
    else
        printf("round trip of a word\t%s\t%.4f\tus\n", row->name,
               seconds * 1e6);
    if (ferror(stdout)) err(1, "stdout");
}

/* The child, until it is killed. */
static void answer(const struct row *row)
{
    struct way *there = &way[row->means][0], *back = &way[row->means][1];
    while (row->burst == 0) pause();
    for (word number = 1;; number++) {
        take(row, there, row->size, number);
        if (number % row->burst == 0) put(row, back, sizeof number, number + 1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Returns seconds per message. The first lap is for the caches only. */
static double exchange(const struct row *row)
{
    struct way *there = &way[row->means][0], *back = &way[row->means][1];
    double begin = 0, time = 0;
    word number = 0;
    while (time < milliseconds / 1e3) {
        number++;
        put(row, there, row->size, number);
        if (row->burst == 0)
            take(row, there, row->size, number);
        else if (number % row->burst == 0)
            take(row, back, sizeof number, number + 1);
        if (number == lap)
            begin = now();
        else if (number % lap == 0)
            time = now() - begin;
    }
    return time / (number - lap);
}

/* Who waits for long may have the core that the other process needs. */
static void spin_while(const _Atomic word *counter, word value)
{
    unsigned spins = 0;
    while (atomic_load_explicit(counter, memory_order_acquire) == value) {
        spins++;
        if (one_core && spins > 1000)
            sched_yield();
        else if (spins % 20000 == 0)
            usleep(1);
    }
}

static void wait_for_post(sem_t *posted)
{
    int failed = sem_wait(posted);
    while (failed && errno == EINTR) failed = sem_wait(posted);
    if (failed) err(1, "sem_wait");
}

static void write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t written = write(fd, bytes, size);
        if (written == -1) err(1, "write");
        bytes += written;
        size -= written;
    }
}

static void read_all(int fd, char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t got = read(fd, bytes, size);
        if (got == -1) err(1, "read");
        bytes += got;
        size -= got;
    }
}

static int by_calls(const struct row *row)
{
    return row->means == pipes || row->means == sockets;
}

static void put(const struct row *row, struct way *to, int size, word number)
{
    message[0] = number;
    message[size / sizeof number - 1] = number;
    if (by_calls(row)) {
        write_all(to->ends[1], (const char *)message, size);
        return;
    }
    const word sent = to->sent;
    spin_while(&to->freed, sent - slots); /* while no slot is free */
    memcpy(to->slot[sent % slots], message, size);
    atomic_store_explicit(&to->sent, sent + 1, memory_order_release);
    if (row->means != semaphore) return;
    if (sem_post(&to->posted) == -1) err(1, "sem_post");
}

/* A message in a slot stays there until the next get(): who needs only a part
   of it reads no more than that. Copied out, it is read whole. */
static const void *get(const struct row *row, struct way *from, int size)
{
    static char buffer[piece];
    if (by_calls(row)) {
        read_all(from->ends[0], buffer, size);
        return buffer;
    }
    atomic_store_explicit(&from->freed, from->received, memory_order_release);
    if (row->means == semaphore) wait_for_post(&from->posted);
    spin_while(&from->sent, from->received); /* while nothing has come */
    const char *slot = from->slot[from->received % slots];
    from->received++;
    if (row->means != copying) return slot;
    return memcpy(buffer, slot, size);
}

/* The first and the last word are checked. To compare all takes longer than to
   send it: that is for the first lap, which is not timed, and later for every
   61st message, so that each slot has its turn. */
static void take(const struct row *row, struct way *from, int size, word number)
{
    const word *data = get(row, from, size);
    const size_t last = size / sizeof *data - 1;
    message[0] = number;
    message[last] = number;
    int right = data[0] == number && data[last] == number;
    const int compare = number <= lap || number % 61 == 0;
    if (right && compare) right = memcmp(data, message, size) == 0;
    if (!right) errx(1, "%s: wrong data", row->name);
}

/* No pipe tells that a child has died: both processes hold all of its ends. One
   that exits has said why; of one that is killed this tells. It may print: what
   it interrupts, exchange(), does not. */
static void watch_child(int number)
{
    int status;
    (void)number;
    if (waitpid(-1, &status, WNOHANG) < 1) return;
    if (status == 0) return;
    if (WIFSIGNALED(status)) warnx("child: %s", strsignal(WTERMSIG(status)));
    _exit(1);
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts("usage: ipc [--runs=N] [--milliseconds=N]\n"
         "Measure what messages between two processes cost: --runs times (5),\n"
         "by each means for --milliseconds (50).\n"
         "example: ipc --runs=1");
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

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"milliseconds", 1, NULL, 'm'},
                                     {"runs", 1, NULL, 'r'},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case 'm': milliseconds = parse_number(optarg, 1, 99999); break;
        case 'r': runs = parse_number(optarg, 1, 99999); break;
        case '?': exit(2);
        }
    if (optind < argc) errx(2, "%s: unexpected; try --help", argv[optind]);
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

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
